"""Images of brains as files: volumes (NIfTI), surfaces (CIFTI, GIFTI) and GLMsingle's arrays, read a few at a time."""
