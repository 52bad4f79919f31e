/* A stand-in for libnvidia-ml.so.1: answers what the file named by NVML_STUB_STATE says, read anew at each call.
 *
 * A line of that file is `key=value` for all cards or `key.INDEX=value` for one. Keys, with what holds without them:
 *
 *   count=8                                     number of cards
 *   name=NVIDIA H100 80GB HBM3
 *   uuid=GPU-00000000-0000-0000-0000-<index, 12 digits>
 *   memory_total=85899345920  memory_used=0     bytes
 *   utilisation=0  temperature=30               percent, degrees Celsius
 *   processes=                                  PID:BYTES of each process that computes there, with blanks between;
 *                                               it comes on top of memory_used
 *   holders=                                    folder of files PID.INDEX, each with the bytes that this process has of
 *                                               that card: used while it lives, and listed among its processes
 *   linger_ms=0                                 how long the memory of a holder that ended stays in use, from the first
 *                                               look that found it dead
 *   context=536870912                           bytes that cuda.c takes for each process beside what that asks for
 *   init=  handle=                              answered with success
 *   delay_ms=0                                  how long each call takes
 *   journal=                                    file that gets a line `init` or `shutdown` for each of those calls
 *
 * Any value may be `error N` instead: the call then returns NVML's error code N.
 */
#include "cards.h"

#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define INSUFFICIENT_SIZE 7

typedef struct card { unsigned index; } *device;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } rates;

static struct card cards[64];
static int sessions;

static void delay(void) {
    char value[LENGTH];
    look_up("delay_ms", -1, "0", value);
    long milliseconds = atol(value);
    struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

static void note(const char *event) {
    char path[LENGTH];
    look_up("journal", -1, "", path);
    FILE *file = *path ? fopen(path, "a") : NULL;
    if (file) {
        fprintf(file, "%s\n", event);
        fclose(file);
    }
}

static int number(const char *key, int index, const char *otherwise, unsigned long long *result) {
    char value[LENGTH];
    delay();
    if (!sessions) return UNINITIALIZED;
    int code = look_up(key, index, otherwise, value);
    if (code == SUCCESS) *result = strtoull(value, NULL, 10);
    return code;
}

static int text(const char *key, int index, const char *otherwise, char *result, unsigned size) {
    char value[LENGTH];
    delay();
    if (!sessions) return UNINITIALIZED;
    int code = look_up(key, index, otherwise, value);
    if (code != SUCCESS) return code;
    if (strlen(value) >= size) return INSUFFICIENT_SIZE;
    strcpy(result, value);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    char value[LENGTH];
    (void)flags;
    delay();
    int code = look_up("init", -1, "", value);
    if (code == SUCCESS) {
        sessions++;
        note("init");
    }
    return code;
}

int nvmlShutdown(void) {
    if (!sessions) return UNINITIALIZED;
    sessions--;
    note("shutdown");
    return SUCCESS;
}

const char *nvmlErrorString(int code) {
    static char words[LENGTH];
    snprintf(words, sizeof words, "stub error %d", code);
    return words;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    unsigned long long value;
    int code = number("count", -1, "8", &value);
    if (code == SUCCESS) *count = (unsigned)value;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *handle) {
    unsigned count;
    char value[LENGTH];
    int code = nvmlDeviceGetCount_v2(&count);
    if (code != SUCCESS) return code;
    if (index >= count || index >= sizeof cards / sizeof *cards) return INVALID_ARGUMENT;
    cards[index].index = index;
    *handle = &cards[index];
    return look_up("handle", (int)index, "", value);
}

int nvmlDeviceGetName(device card, char *name, unsigned size) {
    return text("name", (int)card->index, "NVIDIA H100 80GB HBM3", name, size);
}

int nvmlDeviceGetUUID(device card, char *uuid, unsigned size) {
    char otherwise[LENGTH];
    snprintf(otherwise, sizeof otherwise, "GPU-00000000-0000-0000-0000-%012u", card->index);
    return text("uuid", (int)card->index, otherwise, uuid, size);
}

int nvmlDeviceGetMemoryInfo(device card, memory *result) {
    int code = number("memory_total", (int)card->index, TOTAL, &result->total);
    if (code == SUCCESS) code = number("memory_used", (int)card->index, "0", &result->used);
    if (code != SUCCESS) return code;
    result->used = find_used((int)card->index);
    result->free = result->total - result->used;
    return code;
}

int nvmlDeviceGetUtilizationRates(device card, rates *result) {
    unsigned long long value;
    int code = number("utilisation", (int)card->index, "0", &value);
    if (code == SUCCESS) result->gpu = (unsigned)value;
    return code;
}

int nvmlDeviceGetTemperature(device card, int sensor, unsigned *result) {
    unsigned long long value;
    if (sensor != 0) return INVALID_ARGUMENT;
    int code = number("temperature", (int)card->index, "30", &value);
    if (code == SUCCESS) *result = (unsigned)value;
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device card, unsigned *count, process *result) {
    process found[MOST];
    char value[LENGTH];
    delay();
    if (!sessions) return UNINITIALIZED;
    int code = look_up("processes", (int)card->index, "", value);
    if (code != SUCCESS) return code;
    unsigned long long lingering = 0;
    unsigned there = find_processes((int)card->index, found, &lingering), room = *count;
    *count = there;
    if (there > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++) result[i] = found[i];
    return SUCCESS;
}
