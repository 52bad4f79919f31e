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
 *   init=  handle=                              answered with success
 *   delay_ms=0                                  how long each call takes
 *   journal=                                    file that gets a line `init` or `shutdown` for each of those calls
 *
 * Any value may be `error N` instead: the call then returns NVML's error code N.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SUCCESS 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define INSUFFICIENT_SIZE 7
#define LENGTH 256
#define MOST 64

typedef struct card { unsigned index; } *device;
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { unsigned gpu, memory; } rates;
typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } process;

static struct card cards[64];
static int sessions;

/* Copies the value of `key` to `value`; returns 1 if there is such a line. */
static int read_line(const char *key, char *value) {
    const char *path = getenv("NVML_STUB_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LENGTH];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            line[strcspn(line, "\n")] = 0;
            strcpy(value, line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

/* The value of `key` for one card (index < 0: of none), or `otherwise`; returns NVML's error code. */
static int look_up(const char *key, int index, const char *otherwise, char *value) {
    char one[LENGTH];
    int code = SUCCESS;
    snprintf(one, sizeof one, "%s.%d", key, index);
    if (!(index >= 0 && read_line(one, value)) && !read_line(key, value))
        snprintf(value, LENGTH, "%s", otherwise);
    sscanf(value, "error %d", &code);
    return code;
}

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

/* Whether a process runs; a zombie has no memory any more. */
static int lives(unsigned pid) {
    char path[LENGTH], line[1024], *end;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    line[fread(line, 1, sizeof line - 1, file)] = 0;
    fclose(file);
    end = strrchr(line, ')');
    return end && end[2] != 'Z' && end[2] != 'X';
}

/* Up to `most` processes of a card, as `processes` and the folder `holders` have them; returns how many. */
static unsigned find_processes(int index, process *found, unsigned most) {
    char value[LENGTH], path[2 * LENGTH];
    unsigned count = 0, pid, card;
    unsigned long long bytes;
    look_up("processes", index, "", value);
    for (char *word = strtok(value, " "); word && count < most; word = strtok(NULL, " "))
        if (sscanf(word, "%u:%llu", &pid, &bytes) == 2) found[count++] = (process){pid, bytes, 0, 0};
    look_up("holders", -1, "", value);
    DIR *folder = *value ? opendir(value) : NULL;
    for (struct dirent *entry; folder && count < most && (entry = readdir(folder));) {
        if (sscanf(entry->d_name, "%u.%u", &pid, &card) != 2 || card != (unsigned)index || !lives(pid)) continue;
        snprintf(path, sizeof path, "%s/%s", value, entry->d_name);
        FILE *file = fopen(path, "r");
        if (file && fscanf(file, "%llu", &bytes) == 1) found[count++] = (process){pid, bytes, 0, 0};
        if (file) fclose(file);
    }
    if (folder) closedir(folder);
    return count;
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
    int code = number("memory_total", (int)card->index, "85899345920", &result->total);
    if (code == SUCCESS) code = number("memory_used", (int)card->index, "0", &result->used);
    process held[MOST];
    for (unsigned i = find_processes((int)card->index, held, code == SUCCESS ? MOST : 0); i-- > 0;)
        result->used += held[i].memory;
    if (code == SUCCESS) result->free = result->total - result->used;
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
    unsigned there = find_processes((int)card->index, found, MOST), room = *count;
    *count = there;
    if (there > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++) result[i] = found[i];
    return SUCCESS;
}
