"""Runs a static x86-64 Linux program on an emulated processor with AVX-512 VNNI: `python emulate.py PROGRAM [ARGUMENT...]`.

Bochs's processor (the package bochscpu-python, its model of Ice Lake) executes the program; this file is the kernel
below it. It loads the ELF file, hands system calls to the machine that it runs on, and takes turns between threads, which
change only where one of them waits; a thread that sleeps goes on at once. Memory is one flat array: an address of the
program is an offset into it.
"""

import ctypes
import mmap
import os
import struct
import sys
import time

# The package is built against a newer C library than some machines have; what is missing there is never called.
sys.setdlopenflags(os.RTLD_LAZY)

import bochscpu
import bochscpu.cpu
import bochscpu.memory

GIB = 1 << 30
MEMORY = 64 * GIB  # of addresses; a page takes memory once it is touched
PML4, PDPT = 0x1000, 0x2000  # in the first GiB, which the program does not see
PROGRAM, HEAP, MAPPED, STACK, TRAP = GIB, 2 * GIB, 8 * GIB, MEMORY - 8192, MEMORY - 4096
MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE, MADV_DONTNEED = 0x10, 0x20, 0x4000, 4
CODE, DATA = 0xA09B, 0xC093  # attributes of a 64-bit code segment and of a data segment, ring 0
REGISTERS = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
EAGAIN, ENOMEM, ENOSYS, ETIMEDOUT = 11, 12, 38, 110

# System calls that the machine below answers, and which of their arguments are addresses.
PASSED = {
    0: (1,),  # read
    1: (1,),  # write
    3: (),  # close
    5: (1,),  # fstat
    7: (0,),  # poll
    8: (),  # lseek
    16: (2,),  # ioctl
    17: (1,),  # pread64
    18: (1,),  # pwrite64
    39: (),  # getpid
    72: (),  # fcntl
    74: (),  # fsync
    75: (),  # fdatasync
    77: (),  # ftruncate
    79: (0,),  # getcwd
    82: (0, 1),  # rename
    83: (0,),  # mkdir
    87: (0,),  # unlink
    89: (0, 1),  # readlink
    204: (2,),  # sched_getaffinity
    217: (1,),  # getdents64
    228: (1,),  # clock_gettime
    257: (1,),  # openat
    262: (1, 2),  # newfstatat
    263: (1,),  # unlinkat
    302: (2, 3),  # prlimit64
    318: (0,),  # getrandom
    332: (1, 4),  # statx
}
# mprotect, rt_sigaction, rt_sigprocmask, madvise, sigaltstack, mlock, prctl, sched_setaffinity, set_robust_list
IGNORED = {10, 13, 14, 28, 131, 149, 157, 203, 273}
UNNEEDED = {334, 435}  # rseq and clone3: the C library has another way

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = libc.pread.restype = ctypes.c_long
memory = mmap.mmap(-1, MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))


def get(address, form):
    return struct.unpack_from("<" + form, memory, address)


def put(address, form, *values):
    struct.pack_into("<" + form, memory, address, *values)


def stop(message):
    """Without the package's long report of what it leaves behind, which an ordinary exit prints."""
    print(f"emulate.py: {message}", file=sys.stderr, flush=True)
    os._exit(125)


def whole_pages(size):
    return (size + 4095) & ~4095


def segment(attributes, start=0):
    made = bochscpu.Segment()
    made.selector, made.present, made.attr, made.base, made.limit = 8, True, attributes, start, 0xFFFFFFFF
    return made


def take_ice_lake():
    """The package always makes a Cannon Lake, which has no VNNI: its function jumps to the one that makes an Ice Lake."""
    library = ctypes.CDLL(bochscpu._bochscpu.__file__)

    def address(symbol):
        return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value

    made = address("_Z23create_corei3_cnl_cpuidP8BX_CPU_C")
    wanted = address("_Z29create_corei7_icelake_u_cpuidP8BX_CPU_C")
    libc.mprotect(ctypes.c_void_p(made & ~4095), ctypes.c_size_t(8192), mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    ctypes.memmove(made, b"\xe9" + struct.pack("<i", wanted - made - 5), 5)


def load(program):
    """Copies the file's segments into memory; the entry point and the auxiliary vector's words about the file."""
    try:
        with open(program, "rb") as file:
            data = file.read()
    except OSError as error:
        stop(error)
    if data[:4] != b"\x7fELF" or struct.unpack_from("<HH", data, 16) != (3, 62):
        stop(f"{program}: expected a static position-independent x86-64 program; build it with -C target-feature=+crt-static")
    entry, headers = struct.unpack_from("<QQ", data, 24)
    size, count = struct.unpack_from("<HH", data, 54)
    for index in range(count):
        kind, _, offset, address, _, length, _, _ = struct.unpack_from("<IIQQQQQQ", data, headers + index * size)
        if kind == 3:
            stop(f"{program}: it wants a dynamic loader; build it with -C target-feature=+crt-static")
        if kind == 1:
            memory[PROGRAM + address : PROGRAM + address + length] = data[offset : offset + length]
    return PROGRAM + entry, [3, PROGRAM + headers, 4, size, 5, count, 9, PROGRAM + entry]


def lay_out_stack(arguments, auxiliary):
    """Arguments, environment and auxiliary vector as the System V ABI has them at a program's start; the stack pointer."""
    top = STACK

    def push(raw):
        nonlocal top
        top -= len(raw)
        memory[top : top + len(raw)] = raw
        return top

    arguments = [push(os.fsencode(word) + b"\0") for word in arguments]
    environment = [push(os.fsencode(f"{name}={value}") + b"\0") for name, value in os.environ.items()]
    random = push(os.urandom(16))
    auxiliary = auxiliary + [6, 4096, 11, 0, 12, 0, 13, 0, 14, 0, 23, 0, 25, random, 0, 0]
    words = [len(arguments), *arguments, 0, *environment, 0, *auxiliary]
    top = (top - 8 * len(words)) & ~15
    put(top, f"{len(words)}Q", *words)
    return top


class Thread:
    def __init__(self, number, registers, fs):
        self.number, self.registers, self.fs = number, registers, fs
        self.cleared = 0  # the address where zero announces its end
        self.waits = None  # the futex that it waits for, and until when (None: for ever)


class Machine:
    def __init__(self, arguments):
        take_ice_lake()
        self.session = bochscpu.Session()
        self.session.missing_page_handler = self.missing_page
        self.hook = bochscpu.Hook()
        self.hook.hlt = lambda session, _: session.stop()
        self.hook.exception = self.exception
        self.fault = None
        self.heap, self.mapped, self.free = HEAP, MAPPED, {}
        self.running = Thread(1, None, 0)
        self.threads = [self.running]
        self.started = 1
        entry, auxiliary = load(arguments[0])
        self.start(entry, lay_out_stack(arguments, auxiliary))

    def start(self, entry, stack):
        """Long mode, pages of 1 GiB, AVX-512 switched on. All is ring 0; a system call stops the machine and jumps back."""
        put(PML4, "Q", PDPT | 3)
        for gib in range(1, MEMORY // GIB):
            put(PDPT + 8 * gib, "Q", gib * GIB | 0x83)
        memory[TRAP : TRAP + 3] = b"\xf4\xff\xe1"  # hlt; jmp rcx
        state = bochscpu.State()
        bochscpu.cpu.set_long_mode(state)
        state.cr3 = PML4
        state.cr0 |= 1 << 1
        state.cr4 |= 1 << 9 | 1 << 10 | 1 << 18
        state.efer |= 1
        state.xcr0 = 0xE7
        state.rflags, state.fpcw, state.fptw, state.mxcsr, state.mxcsr_mask = 2, 0x37F, 0xFFFF, 0x1F80, 0xFFFF
        state.cs, state.ss, state.ds, state.es, state.fs, state.gs = segment(CODE), *(segment(DATA) for _ in range(5))
        state.star, state.lstar, state.sfmask = 8 << 32, TRAP, 0
        state.rip, state.rsp = entry, stack
        self.session.cpu.state = state

    def missing_page(self, address):
        page = address & ~4095
        bochscpu.memory.page_insert(page, base + page)

    def exception(self, session, _, vector, code):
        rip = session.cpu.rip
        self.fault = f"exception {vector} ({code}) at {rip:#x} (the file's {rip - PROGRAM:#x}), address {session.cpu.cr2:#x}"
        session.stop()

    def run(self):
        """Until the program exits; its exit status."""
        cpu = self.session.cpu
        while True:
            self.session.run([self.hook])
            if not self.fault and cpu.rip & ~4095 != TRAP:
                self.fault = f"the program stopped itself at {cpu.rip:#x} (the file's {cpu.rip - PROGRAM:#x})"
            if self.fault:
                stop(self.fault)
            number, arguments = cpu.rax, [cpu.rdi, cpu.rsi, cpu.rdx, cpu.r10, cpu.r8, cpu.r9]
            if number == 231 or (number == 60 and len(self.threads) == 1):
                return arguments[0] & 255
            result = self.call(number, arguments)
            if result is not None:
                cpu.rax = result & 0xFFFFFFFFFFFFFFFF

    def call(self, number, a):
        """One system call; None where another thread runs now."""
        if number in PASSED:
            words = [base + word if index in PASSED[number] and word else word for index, word in enumerate(a)]
            result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_ulong, words))
            return -ctypes.get_errno() if result == -1 else result
        if number in IGNORED:
            return 0
        match number:
            case 9:
                return self.map(*a)
            case 11:
                return self.unmap(a[0], whole_pages(a[1]))
            case 12:  # brk
                if HEAP <= a[0] < MAPPED:
                    self.heap = a[0]
                return self.heap
            case 20:  # writev
                parts = [get(a[1] + 16 * index, "QQ") for index in range(a[2])]
                try:
                    return os.write(a[0], b"".join(memory[at : at + size] for at, size in parts))
                except OSError as error:
                    return -error.errno
            case 24:  # sched_yield
                return self.turn()
            case 25:  # mremap
                at = self.map(0, a[2], 0, MAP_ANONYMOUS, 0, 0)
                if at < 0:
                    return at
                size = min(a[1], a[2])
                memory[at : at + size] = memory[a[0] : a[0] + size]
                self.unmap(a[0], whole_pages(a[1]))
                return at
            case 35 | 230:  # nanosleep, clock_nanosleep
                return self.turn()
            case 56:
                return self.clone(*a[:5])
            case 60:
                return self.exit()
            case 158 if a[0] == 0x1002:  # arch_prctl(ARCH_SET_FS)
                self.running.fs = a[1]
                state = self.session.cpu.state
                state.fs = segment(DATA, a[1])
                self.session.cpu.state = state
                return 0
            case 186:  # gettid
                return self.running.number
            case 202:
                return self.futex(*a[:4])
            case 218:  # set_tid_address
                self.running.cleared = a[0]
                return self.running.number
            case 234:  # tgkill
                stop(f"the program sends itself signal {a[2]}")
        if number not in UNNEEDED:
            print(f"emulate.py: system call {number} is not known: ENOSYS", file=sys.stderr, flush=True)
        return -ENOSYS

    def map(self, address, length, _protection, flags, file, offset):
        size = whole_pages(length)
        if flags & MAP_FIXED:
            at = address
            self.forget(at, size)
        elif self.free.get(size):
            at = self.free[size].pop()
        else:
            at = self.mapped
            if at + size > STACK - (64 << 20):
                return -ENOMEM
            self.mapped += size + 4096
        read = 0
        while not flags & MAP_ANONYMOUS and read < length:
            part = libc.pread(
                file, ctypes.c_void_p(base + at + read), ctypes.c_size_t(length - read), ctypes.c_long(offset + read)
            )
            if part <= 0:
                break
            read += part
        return at

    def unmap(self, address, size):
        self.forget(address, size)
        self.free.setdefault(size, []).append(address)
        return 0

    def forget(self, address, size):
        libc.madvise(ctypes.c_void_p(base + address), ctypes.c_size_t(size), MADV_DONTNEED)

    def keep(self):
        """The running thread's registers. Those of vectors are lost where threads change: in calls made by functions of the
        C library, whose callers do not expect them back."""
        state = self.session.cpu.state
        self.running.registers = [getattr(state, name) for name in REGISTERS]

    def go_on(self, thread):
        self.running = thread
        state = self.session.cpu.state
        for name, value in zip(REGISTERS, thread.registers):
            setattr(state, name, value)
        state.fs = segment(DATA, thread.fs)
        self.session.cpu.state = state

    def turn(self):
        """On to the next thread that does not wait; the running one's call will return 0."""
        self.keep()
        self.running.registers[0] = 0
        self.next(self.threads.index(self.running) + 1)

    def next(self, at):
        order = self.threads[at:] + self.threads[:at]
        ready = [thread for thread in order if thread.waits is None]
        if ready:
            return self.go_on(ready[0])
        timed = [thread for thread in order if thread.waits[1] is not None]
        if not timed:
            stop("every thread waits for another one")
        first = min(timed, key=lambda thread: thread.waits[1])
        time.sleep(max(0, first.waits[1] - time.monotonic()))
        first.waits = None
        first.registers[0] = -ETIMEDOUT & 0xFFFFFFFFFFFFFFFF
        self.go_on(first)

    def clone(self, flags, stack, parent, child, tls):
        self.keep()
        self.started += 1
        made = Thread(self.started, list(self.running.registers), tls)
        made.registers[REGISTERS.index("rax")] = 0
        made.registers[REGISTERS.index("rsp")] = stack
        if flags & 0x100000:  # CLONE_PARENT_SETTID
            put(parent, "I", made.number)
        if flags & 0x1000000:  # CLONE_CHILD_SETTID
            put(child, "I", made.number)
        if flags & 0x200000:  # CLONE_CHILD_CLEARTID
            made.cleared = child
        self.threads.append(made)
        return made.number

    def exit(self):
        at = self.threads.index(self.running)
        del self.threads[at]
        if self.running.cleared:
            put(self.running.cleared, "I", 0)
            self.wake(self.running.cleared, 1)
        self.next(at)

    def wake(self, address, count):
        woken = [thread for thread in self.threads if thread.waits and thread.waits[0] == address][:count]
        for thread in woken:
            thread.waits = None
        return len(woken)

    def futex(self, address, operation, value, timeout):
        operation &= 127
        if operation in (1, 10):  # FUTEX_WAKE, FUTEX_WAKE_BITSET
            return self.wake(address, value)
        if operation not in (0, 9):  # FUTEX_WAIT, FUTEX_WAIT_BITSET
            return -ENOSYS
        if get(address, "I")[0] != value & 0xFFFFFFFF:
            return -EAGAIN
        until = None
        if timeout:
            seconds, nanoseconds = get(timeout, "qq")
            until = seconds + nanoseconds / 1e9 + (time.monotonic() if operation == 0 else 0)
        self.running.waits = (address, until)
        return self.turn()


if len(sys.argv) < 2:
    stop("which program? " + __doc__.splitlines()[0])
os._exit(Machine(sys.argv[1:]).run())
