/*
 * Lets user-mode Linux 6.1 run on processors with AVX-512 and what came after it (LD_PRELOAD).
 *
 * It keeps the first 832 bytes of a process's vector registers and gives these back, but the host takes all of
 * them or none (EFAULT, arch/x86/kernel/fpu/regset.c), so that the first process of a guest dies. Here the rest is
 * kept for each buffer that was filled, and added when the buffer comes back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { ROOM = 16384, STATES = 1024 };

struct state {
	void *buffer;
	size_t length;
	char bytes[ROOM];
};

static struct state states[STATES];
static long (*next)(int, ...);

__attribute__((constructor)) static void start(void)
{
	next = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
}

/* The state that belongs to a buffer; one that nobody needs any more where all are taken. */
static struct state *find(void *buffer)
{
	size_t first = ((uintptr_t)buffer >> 6) % STATES;
	struct state *state = &states[first];

	for (size_t step = 0; step < STATES; step++) {
		struct state *at = &states[(first + step) % STATES];
		if (at->buffer == buffer || !at->buffer) {
			state = at;
			break;
		}
	}
	if (state->buffer != buffer) {
		state->buffer = buffer;
		state->length = 0;
	}
	return state;
}

static long fetch(pid_t pid, struct state *state)
{
	struct iovec all = { state->bytes, ROOM };
	long answer = next(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &all);

	state->length = answer < 0 ? 0 : all.iov_len;
	return answer;
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list list;

	va_start(list, request);
	pid_t pid = va_arg(list, pid_t);
	void *address = va_arg(list, void *);
	void *data = va_arg(list, void *);
	va_end(list);

	int reads = request == PTRACE_GETREGSET;
	if ((!reads && request != PTRACE_SETREGSET) || address != (void *)NT_X86_XSTATE)
		return next(request, pid, address, data);

	struct iovec *wanted = data;
	struct state *state = find(wanted->iov_base);
	if (reads || !state->length) {
		long answer = fetch(pid, state);
		if (answer < 0)
			return answer;
	}
	size_t known = wanted->iov_len < state->length ? wanted->iov_len : state->length;
	if (reads) {
		memcpy(wanted->iov_base, state->bytes, known);
		wanted->iov_len = known;
		return 0;
	}
	memcpy(state->bytes, wanted->iov_base, known);
	struct iovec all = { state->bytes, state->length };
	return next(PTRACE_SETREGSET, pid, address, &all);
}
