export const train = null; 
