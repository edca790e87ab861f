/* A stand-in for the CUDA runtime: the GPU's memory is the host's. */
#include <stdlib.h>
#include <string.h>

static int live;

int cudaMalloc(void **address, size_t size) {
    if (getenv("STANDIN_NO_MEMORY")) return 2;
    *address = malloc(size);
    live++;
    return 0;
}
int cudaFree(void *address) { free(address); live--; return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    if ((kind != 1 && kind != 2) || !stream) return 1;
    memcpy(to, from, size);
    return 0;
}
int cudaStreamCreate(void **stream) { *stream = malloc(1); live++; return 0; }
int cudaStreamDestroy(void *stream) { free(stream); live--; return 0; }
int cudaStreamSynchronize(void *stream) { return stream ? 0 : 1; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaGetDeviceProperties(void *properties, int device) {
    const char *name = getenv("STANDIN_GPU");
    strcpy(properties, name ? name : "Orin");
    return device;
}
int cudaDeviceGetAttribute(int *value, int kind, int device) { *value = kind == 75 ? 8 : 7; return device; }
const char *cudaGetErrorString(int code) { return code == 2 ? "out of memory" : "invalid argument"; }
int standin_live(void) { return live; }
