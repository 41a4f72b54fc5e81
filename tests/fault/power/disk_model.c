/* The model is a tree of nodes as a program sees it, and beside it the tree that is on the disk
 * with, per node, the list of what was changed since its last sync. */
#include "disk_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct entry {
    char *name;
    disk_node *node;
} entry;

typedef struct entries {
    entry *list;
    size_t count;
} entries;

typedef enum change_kind { WRITE, RESIZE, ADD, REMOVE, MOVE } change_kind;

typedef struct change {
    change_kind kind;
    off_t at; /* RESIZE: the new size */
    size_t len;
    uint8_t *data;
    char *name; /* of the entry that is added, removed or moved */
    char *to;   /* MOVE */
    disk_node *node;
} change;

struct disk_node {
    bool folder;
    char name[256];
    change *changes; /* since the last sync, in order */
    size_t change_count;
    size_t change_room;
    /* a folder's */
    entries now;
    entries durable;
    /* a file's */
    bool forgot;    /* a failed sync has dropped changes: image and real file differ */
    bool kept;      /* image holds what is durable; otherwise the real file does, unchanged */
    uint8_t *image; /* owned */
    size_t size;
    size_t room;
    char *real;        /* where the real file is */
    uint8_t *survived; /* after a cut; a node with two names is drawn once */
    size_t survived_size;
};

static char root_path[DISK_PATH_SIZE];
static disk_node *root;
static uint64_t generator;

static void *need(void *memory) {
    if (!memory) abort();
    return memory;
}

static _Noreturn void broken(const char *what, const char *path) {
    fprintf(stderr, "power shim: %s: %s: %s\n", path, what, strerror(errno));
    abort();
}

uint64_t disk_random(uint64_t below) {
    uint64_t z = generator += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % below;
}

/* ---- entries ------------------------------------------------------------------------------- */

static entry *entries_find(const entries *self, const char *name) {
    for (size_t i = 0; i < self->count; i++)
        if (strcmp(self->list[i].name, name) == 0) return &self->list[i];
    return NULL;
}

static void entries_set(entries *self, const char *name, disk_node *node) {
    entry *there = entries_find(self, name);
    if (there) {
        there->node = node;
        return;
    }
    self->list = need(realloc(self->list, (self->count + 1) * sizeof *self->list));
    self->list[self->count++] = (entry){.name = need(strdup(name)), .node = node};
}

static void entries_remove(entries *self, const char *name) {
    entry *there = entries_find(self, name);
    if (!there) return;
    free(there->name);
    *there = self->list[--self->count];
}

static void entries_apply(entries *self, const change *it) {
    const entry *there = entries_find(self, it->name);
    bool same = there && there->node == it->node;
    if (it->kind == ADD) entries_set(self, it->name, it->node);
    if ((it->kind == REMOVE || it->kind == MOVE) && same) entries_remove(self, it->name);
    if (it->kind == MOVE) entries_set(self, it->to, it->node);
}

static entries entries_copy(const entries *self) {
    entries copy = {0};
    for (size_t i = 0; i < self->count; i++)
        entries_set(&copy, self->list[i].name, self->list[i].node);
    return copy;
}

static void entries_free(entries *self) {
    for (size_t i = 0; i < self->count; i++)
        free(self->list[i].name);
    free(self->list);
}

/* ---- nodes --------------------------------------------------------------------------------- */

bool disk_path(const char *path, char out[DISK_PATH_SIZE]) {
    char text[DISK_PATH_SIZE] = "";
    size_t len = 0;
    if (path[0] != '/') return false;
    while (*path) {
        size_t part = strcspn(path, "/");
        if (part == 2 && memcmp(path, "..", 2) == 0) {
            while (len && text[--len] != '/')
                ;
        } else if (part && !(part == 1 && *path == '.')) {
            if (len + part + 2 > sizeof text) return false;
            text[len++] = '/';
            memcpy(text + len, path, part);
            len += part;
        }
        path += part + (path[part] == '/');
    }
    text[len] = '\0';
    size_t above = strlen(root_path);
    if (strncmp(text, root_path, above) != 0 || (text[above] && text[above] != '/')) return false;
    memcpy(out, text + above + (text[above] == '/'), len - above + !text[above]);
    return true;
}

disk_node *disk_find(const char *path) {
    disk_node *at = root;
    while (at && *path) {
        char name[256];
        size_t part = strcspn(path, "/");
        if (part >= sizeof name || !at->folder) return NULL;
        memcpy(name, path, part);
        name[part] = '\0';
        path += part + (path[part] == '/');
        const entry *there = entries_find(&at->now, name);
        at = there ? there->node : NULL;
    }
    return at;
}

const char *disk_name(const disk_node *node) { return node->name; }

static char *real_path(const char *path) {
    char *out;
    if (asprintf(&out, "%s/%s", root_path, path) < 0) abort();
    return out;
}

/* The folder of a path, and in `name` its last part. */
static disk_node *find_parent(const char *path, const char **name) {
    char folder[DISK_PATH_SIZE];
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    size_t len = slash ? (size_t)(slash - path) : 0;
    memcpy(folder, path, len);
    folder[len] = '\0';
    disk_node *parent = disk_find(folder);
    if (!parent) broken("its folder is not known", path);
    return parent;
}

static disk_node *new_node(const char *path, bool folder) {
    disk_node *node = need(calloc(1, sizeof *node));
    const char *slash = strrchr(path, '/');
    (void)snprintf(node->name, sizeof node->name, "%s", slash ? slash + 1 : path);
    node->folder = folder;
    node->kept = true;
    node->real = real_path(path);
    return node;
}

static change *add_change(disk_node *node, change_kind kind) {
    if (node->change_count == node->change_room) {
        node->change_room = node->change_room ? 2 * node->change_room : 8;
        node->changes = need(realloc(node->changes, node->change_room * sizeof *node->changes));
    }
    change *it = &node->changes[node->change_count++];
    *it = (change){.kind = kind};
    return it;
}

static void change_name(disk_node *folder, change_kind kind, const char *name, const char *to,
                        disk_node *node) {
    change *it = add_change(folder, kind);
    it->name = need(strdup(name));
    it->to = to ? need(strdup(to)) : NULL;
    it->node = node;
    entries_apply(&folder->now, it);
}

disk_node *disk_create(const char *path, bool folder) {
    const char *name;
    disk_node *parent = find_parent(path, &name);
    disk_node *node = new_node(path, folder);
    change_name(parent, ADD, name, NULL, node);
    return node;
}

static uint8_t *read_file(const char *path, size_t *size) {
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) != 0) broken("cannot read", path);
    *size = (size_t)status.st_size;
    uint8_t *bytes = need(malloc(*size + 1));
    if (pread(file, bytes, *size, 0) != (ssize_t)*size) broken("cannot read", path);
    (void)close(file);
    return bytes;
}

void disk_keep(disk_node *node) {
    if (node->folder || node->kept) return;
    node->image = read_file(node->real, &node->size);
    node->room = node->size;
    node->kept = true;
}

void disk_write(disk_node *node, off_t at, const void *data, size_t len) {
    change *it = add_change(node, WRITE);
    it->at = at;
    it->len = len;
    it->data = need(malloc(len + 1));
    memcpy(it->data, data, len);
}

void disk_resize(disk_node *node, off_t size) { add_change(node, RESIZE)->at = size; }

void disk_unlink(const char *path) {
    const char *name;
    disk_node *parent = find_parent(path, &name);
    disk_node *node = disk_find(path);
    if (!node) return;
    disk_keep(node);
    change_name(parent, REMOVE, name, NULL, node);
}

void disk_rename(const char *from, const char *to) {
    const char *old_name;
    const char *new_name;
    disk_node *old_parent = find_parent(from, &old_name);
    disk_node *new_parent = find_parent(to, &new_name);
    disk_node *node = disk_find(from);
    disk_node *replaced = disk_find(to);
    if (!node) return;
    if (replaced) disk_keep(replaced);
    disk_keep(node);
    if (old_parent == new_parent) {
        change_name(old_parent, MOVE, old_name, new_name, node);
    } else {
        change_name(new_parent, ADD, new_name, NULL, node);
        change_name(old_parent, REMOVE, old_name, NULL, node);
    }
    free(node->real);
    node->real = real_path(to);
    (void)snprintf(node->name, sizeof node->name, "%s", new_name);
}

/* ---- syncing ------------------------------------------------------------------------------- */

static void image_resize(disk_node *node, size_t size) {
    if (size > node->room) {
        node->room = size + size / 2;
        node->image = need(realloc(node->image, node->room));
    }
    if (size > node->size) memset(node->image + node->size, 0, size - node->size);
    node->size = size;
}

static void image_apply(disk_node *node, const change *it) {
    if (it->kind == RESIZE) {
        image_resize(node, (size_t)it->at);
        return;
    }
    size_t end = (size_t)it->at + it->len;
    if (end > node->size) image_resize(node, end);
    memcpy(node->image + it->at, it->data, it->len);
}

static void forget_changes(disk_node *node) {
    for (size_t i = 0; i < node->change_count; i++) {
        free(node->changes[i].data);
        free(node->changes[i].name);
        free(node->changes[i].to);
    }
    node->change_count = 0;
}

void disk_sync(disk_node *node) {
    for (size_t i = 0; i < node->change_count; i++) {
        if (node->folder)
            entries_apply(&node->durable, &node->changes[i]);
        else
            image_apply(node, &node->changes[i]);
    }
    forget_changes(node);
}

void disk_sync_failed(disk_node *node) {
    if (node->folder) return;
    node->forgot = true;
    forget_changes(node);
}

/* ---- the start ----------------------------------------------------------------------------- */

static void scan(disk_node *folder, const char *path) {
    char *real = real_path(path);
    DIR *list = opendir(real);
    if (!list) broken("cannot list", real);
    for (const struct dirent *it; (it = readdir(list));) {
        if (strcmp(it->d_name, ".") == 0 || strcmp(it->d_name, "..") == 0) continue;
        char below[DISK_PATH_SIZE];
        (void)snprintf(below, sizeof below, "%s%s%s", path, *path ? "/" : "", it->d_name);
        disk_node *node = new_node(below, it->d_type == DT_DIR);
        node->kept = false;
        entries_set(&folder->now, it->d_name, node);
        entries_set(&folder->durable, it->d_name, node);
        if (node->folder) scan(node, below);
    }
    (void)closedir(list);
    free(real);
}

void disk_init(const char *path, uint64_t seed) {
    (void)snprintf(root_path, sizeof root_path, "%s", path);
    generator = seed;
    root = new_node("", true);
    scan(root, "");
}

/* ---- what a cut leaves --------------------------------------------------------------------- */

typedef enum survival { NOTHING, EVERYTHING, BEGINNING, ANY_BLOCKS, SURVIVALS } survival;

/* How many changes of names from the start must survive with the others: see disk_model.h. */
static size_t draw_names(const disk_node *folder, bool *survives) {
    survival how = (survival)disk_random(SURVIVALS);
    size_t beginning = disk_random(folder->change_count + 1);
    size_t ordered = 0;
    for (size_t i = 0; i < folder->change_count; i++) {
        survives[i] = how == EVERYTHING || (how == BEGINNING && i < beginning) ||
                      (how == ANY_BLOCKS && disk_random(2));
        if (survives[i] && folder->changes[i].kind == MOVE) ordered = i;
    }
    return ordered;
}

static entries draw_entries(const disk_node *folder, disk_losses *losses) {
    entries left = entries_copy(&folder->durable);
    bool *survives = need(calloc(folder->change_count + 1, sizeof *survives));
    size_t ordered = draw_names(folder, survives);
    for (size_t i = 0; i < folder->change_count; i++) {
        survives[i] |= i < ordered;
        if (survives[i]) entries_apply(&left, &folder->changes[i]);
        losses->names++;
        losses->lost_names += !survives[i];
    }
    free(survives);
    return left;
}

/* Size of the file after its first `count` changes. */
static size_t size_after(const disk_node *file, size_t count) {
    size_t size = file->size;
    for (size_t i = 0; i < count; i++) {
        const change *it = &file->changes[i];
        size_t end = (size_t)it->at + it->len;
        if (it->kind == RESIZE || end > size) size = end;
    }
    return size;
}

/* For a block: how many of the file's changes, in their order, it has seen. */
static size_t draw_block(survival how, size_t beginning, size_t count) {
    if (how == NOTHING) return 0;
    if (how == EVERYTHING) return count;
    if (how == BEGINNING) return beginning + (beginning < count && disk_random(2));
    size_t drawn[] = {0, count, disk_random(count + 1)};
    return drawn[disk_random(3)];
}

static void apply_to_blocks(uint8_t *out, size_t size, size_t block, const size_t *seen,
                            const change *it, size_t index) {
    size_t from = (size_t)it->at;
    size_t to = it->kind == WRITE ? from + it->len : size;
    for (size_t at = from; at < to && at < size;) {
        size_t end = (at / block + 1) * block;
        if (end > to) end = to;
        if (end > size) end = size;
        if (index < seen[at / block]) {
            if (it->kind == WRITE)
                memcpy(out + at, it->data + (at - from), end - at);
            else
                memset(out + at, 0, end - at);
        }
        at = end;
    }
}

static void draw_content(disk_node *file, disk_losses *losses) {
    size_t count = file->change_count;
    survival how = (survival)disk_random(SURVIVALS);
    size_t beginning = disk_random(count + 1);
    size_t block = disk_random(2) ? 512 : 4096;
    size_t sized = how == BEGINNING ? beginning + (beginning < count) : disk_random(count + 1);
    if (how == NOTHING) sized = 0;
    if (how == EVERYTHING) sized = count;
    size_t size = size_after(file, sized);
    uint8_t *out = need(calloc(1, size + 1));
    memcpy(out, file->image, file->size < size ? file->size : size);
    /* Blocks that the file got and that were never written: zeros, or what was there before. */
    if (disk_random(4) == 0)
        for (size_t i = file->size; i < size; i++)
            out[i] = (uint8_t)disk_random(256);
    size_t blocks = size / block + 1;
    size_t *seen = need(calloc(blocks, sizeof *seen));
    for (size_t i = 0; i < blocks; i++)
        seen[i] = draw_block(how, beginning, count);
    for (size_t i = 0; i < count; i++)
        apply_to_blocks(out, size, block, seen, &file->changes[i], i);
    free(seen);
    file->survived = out;
    file->survived_size = size;
    losses->files++;
    losses->torn_files += how == BEGINNING || how == ANY_BLOCKS;
}

static void write_file(const char *path, const uint8_t *bytes, size_t size) {
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) broken("cannot make", path);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(file, bytes + done, size - done);
        if (n <= 0) broken("cannot write", path);
        done += (size_t)n;
    }
    (void)close(file);
}

static void write_node(disk_node *node, const char *path, disk_losses *losses) {
    if (!node->folder && !node->kept) {
        if (link(node->real, path) != 0) broken("cannot link", path);
    } else if (!node->folder) {
        if (node->change_count && !node->survived) draw_content(node, losses);
        if (node->survived)
            write_file(path, node->survived, node->survived_size);
        else
            write_file(path, node->image, node->size);
    } else {
        if (mkdir(path, 0700) != 0) broken("cannot make", path);
        entries left = draw_entries(node, losses);
        for (size_t i = 0; i < left.count; i++) {
            char below[DISK_PATH_SIZE];
            (void)snprintf(below, sizeof below, "%s/%s", path, left.list[i].name);
            write_node(left.list[i].node, below, losses);
        }
        entries_free(&left);
    }
}

disk_losses disk_cut(void) {
    disk_losses losses = {0};
    char after[DISK_PATH_SIZE + 8];
    char before[DISK_PATH_SIZE + 8];
    (void)snprintf(after, sizeof after, "%s.after", root_path);
    (void)snprintf(before, sizeof before, "%s.before", root_path);
    write_node(root, after, &losses);
    if (rename(root_path, before) != 0 || rename(after, root_path) != 0)
        broken("cannot rename", root_path);
    return losses;
}

/* ---- the shim's own check ------------------------------------------------------------------ */

static void check_file(const disk_node *file) {
    if (!file->kept || file->forgot) return;
    disk_node copy = {.size = file->size, .room = file->size};
    copy.image = need(malloc(file->size + 1));
    if (file->size) memcpy(copy.image, file->image, file->size);
    for (size_t i = 0; i < file->change_count; i++)
        image_apply(&copy, &file->changes[i]);
    size_t size;
    uint8_t *real = read_file(file->real, &size);
    if (size != copy.size || memcmp(real, copy.image, size) != 0)
        broken("is not what the shim has seen written", file->real);
    free(real);
    free(copy.image);
}

static void check_folder(const disk_node *folder, const char *path) {
    char *real = real_path(path);
    DIR *list = opendir(real);
    size_t count = 0;
    if (!list) broken("cannot list", real);
    for (const struct dirent *it; (it = readdir(list));) {
        if (strcmp(it->d_name, ".") == 0 || strcmp(it->d_name, "..") == 0) continue;
        char below[DISK_PATH_SIZE];
        (void)snprintf(below, sizeof below, "%s%s%s", path, *path ? "/" : "", it->d_name);
        const entry *there = entries_find(&folder->now, it->d_name);
        if (!there) broken("is there, but the shim has not seen it made", below);
        if (there->node->folder)
            check_folder(there->node, below);
        else
            check_file(there->node);
        count++;
    }
    if (count != folder->now.count) broken("has lost a file behind the shim's back", real);
    (void)closedir(list);
    free(real);
}

void disk_check(void) { check_folder(root, ""); }
