export const units = null;
