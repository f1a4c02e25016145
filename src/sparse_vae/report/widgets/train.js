export const train = null;
