/* A stand-in for libcuda.so.1: memory of the cards that nvml.c tells of, taken and given back for the calling process.
 *
 * What a process has stands in the state's folder `holders`, which must be there, so that NVML's stand-in shows it. As on
 * a real card a process has a context as well, nobody gets what is not free, and all is gone when the process ends.
 */
#include "cards.h"

#include <sys/file.h>

#define INVALID_VALUE 1
#define OUT_OF_MEMORY 2
#define NOT_INITIALIZED 3
#define NO_DEVICE 100
#define INVALID_DEVICE 101
#define INVALID_CONTEXT 201
#define ALLOCATIONS 1024
#define CONTEXT "536870912"

/* The cards that CUDA_VISIBLE_DEVICES names, and what this process has of each. */
static struct { int index; unsigned long long held; } devices[MOST];
static int initialized, visible, current = -1;
static struct { unsigned long long size; int device; } allocations[ALLOCATIONS];

/* Locks the folder of holders against other processes, and puts its name to `folder`; negative where there is none. */
static int lock(char *folder) {
    char path[2 * LENGTH];
    look_up("holders", -1, "", folder);
    if (!*folder) return -1;
    snprintf(path, sizeof path, "%s/lock", folder);
    int file = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (file >= 0) flock(file, LOCK_EX);
    return file;
}

/* Have `size` bytes more (or fewer, if negative) of a card, if they are free; returns CUDA's error code. */
static int change(int device, long long size) {
    char folder[LENGTH], path[2 * LENGTH], fresh[2 * LENGTH];
    int index = devices[device].index, code = OUT_OF_MEMORY, held = lock(folder);
    if (held < 0) return NO_DEVICE;
    unsigned long long total = look_up_number("memory_total", index, TOTAL), used = find_used(index);
    if (size <= 0 || used + (unsigned long long)size <= total) {
        devices[device].held += (unsigned long long)size;
        snprintf(path, sizeof path, "%s/%d.%d", folder, (int)getpid(), index);
        snprintf(fresh, sizeof fresh, "%s/.%d.%d", folder, (int)getpid(), index);
        FILE *file = fopen(fresh, "w");
        if (file) {
            fprintf(file, "%llu", devices[device].held);
            fclose(file);
            code = rename(fresh, path) == 0 ? SUCCESS : NO_DEVICE;
        }
    }
    close(held);
    return code;
}

int cuInit(unsigned flags) {
    const char *words = getenv("CUDA_VISIBLE_DEVICES");
    int count = (int)look_up_number("count", -1, "8"), length;
    if (flags) return INVALID_VALUE;
    for (visible = 0; !words && visible < count && visible < MOST; visible++) devices[visible].index = visible;
    for (int index; words && visible < MOST && sscanf(words, " %d%n", &index, &length) == 1; words += *words == ',') {
        words += length;
        if (index < 0 || index >= count) break;
        devices[visible++].index = index;
    }
    initialized = visible > 0;
    return initialized ? SUCCESS : NO_DEVICE;
}

int cuDeviceGetCount(int *count) {
    *count = visible;
    return initialized ? SUCCESS : NOT_INITIALIZED;
}

int cuDeviceGet(int *device, int ordinal) {
    if (!initialized) return NOT_INITIALIZED;
    if (ordinal < 0 || ordinal >= visible) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    if (!initialized) return NOT_INITIALIZED;
    *context = &devices[device];
    return devices[device].held ? SUCCESS : change(device, (long long)look_up_number("context", -1, CONTEXT));
}

int cuCtxSetCurrent(void *context) {
    for (current = visible - 1; current >= 0 && context != &devices[current];) current--;
    return current < 0 ? INVALID_CONTEXT : SUCCESS;
}

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    if (current < 0) return INVALID_CONTEXT;
    *total = look_up_number("memory_total", devices[current].index, TOTAL);
    unsigned long long used = find_used(devices[current].index);
    *free = used < *total ? *total - used : 0;
    return SUCCESS;
}

int cuMemAlloc_v2(unsigned long long *address, size_t size) {
    int slot = 0;
    if (current < 0) return INVALID_CONTEXT;
    while (slot < ALLOCATIONS && allocations[slot].size) slot++;
    if (!size || slot == ALLOCATIONS) return INVALID_VALUE;
    int code = change(current, (long long)size);
    if (code != SUCCESS) return code;
    allocations[slot].size = size;
    allocations[slot].device = current;
    *address = (unsigned long long)(slot + 1) << 32;
    return SUCCESS;
}

int cuMemFree_v2(unsigned long long address) {
    unsigned long long slot = (address >> 32) - 1;
    if (slot >= ALLOCATIONS || !allocations[slot].size) return INVALID_VALUE;
    int code = change(allocations[slot].device, -(long long)allocations[slot].size);
    allocations[slot].size = 0;
    return code;
}

int cuGetErrorName(int code, const char **name) {
    *name = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR";
    return SUCCESS;
}
