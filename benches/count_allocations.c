/* Counts the allocations of a program that uses the allocator of glibc. bin/bench preloads it into the
 * app. The environment variable ALLOCATIONS names a file of 8 bytes that holds the count. */

#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static _Atomic unsigned long unused_count;
static _Atomic unsigned long *count = &unused_count;

__attribute__((constructor)) static void open_count(void) {
  const char *path = getenv("ALLOCATIONS");
  int file = path ? open(path, O_RDWR) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) count = mapped;
  close(file);
}

static void count_allocation(void) { atomic_fetch_add_explicit(count, 1, memory_order_relaxed); }

void *malloc(size_t size) {
  count_allocation();
  return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
  count_allocation();
  return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
  count_allocation();
  return __libc_realloc(old, size);
}

int posix_memalign(void **result, size_t alignment, size_t size) {
  count_allocation();
  *result = __libc_memalign(alignment, size);
  return *result ? 0 : 12; /* ENOMEM */
}
