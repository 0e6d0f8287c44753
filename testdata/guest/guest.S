# The smallest guest that keeps its vCPUs busy for a chosen share of the time.
#
# It is a boot sector: 512 bytes that the firmware reads from the first disk to
# address 0x7c00 and jumps to, in 16-bit real mode. There is no operating system
# behind it. Time is counted in timer ticks, 18 of which make one period; in each
# period vCPU n spins for its duty of k ticks and sleeps in `hlt` for the other
# 18 - k, so seen from the host it uses k/18 of a CPU. k = 0 is an idle vCPU,
# k = 18 one that never rests. What a vCPU wants is time by the clock, not work:
# one that has to wait for its CPU while it spins does not catch up later.
#
# What the assembler must be told, with --defsym NAME=VALUE:
#
#   DUTY         ticks of 18 that a vCPU spins, 0..18 (required)
#   DUTY_0 ...   the duty of one vCPU, DUTY_0 to DUTY_15, where it is not DUTY
#   PIT_RELOAD   the timer runs at 1193182 / PIT_RELOAD Hz; without it, or with 0,
#                at the firmware's 18.2 Hz, which makes a period of 0.99 s. Each
#                tick costs some time too: with more than about 100 Hz a guest
#                uses visibly more than its duty
#
# To build and to try by hand:
#
#   as --32 --defsym DUTY=6 -o guest.o guest.S
#   ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o guest.img guest.o
#   qemu-system-x86_64 -m 4 -smp 2 -nographic -drive file=guest.img,format=raw
#
# How several vCPUs work together. The firmware boots vCPU 0 only. vCPU 0 starts
# the others, then counts ticks: only it gets the timer's interrupt. On each tick
# it writes the position in the period to `phase` and sends each of the others an
# interrupt, which wakes it if it sleeps. All of them, vCPU 0 too, compare
# `phase` with their own duty to learn whether to spin or to sleep. Their periods
# begin at different ticks, spread so that two vCPUs of one guest can share a CPU
# with little waiting.
#
# Each vCPU writes one character to the first serial port when its duty begins:
# '0' for vCPU 0, '1' for vCPU 1, and so on (':' follows '9'). Who started the
# guest can wait for them instead of guessing how long the firmware takes.

        .code16
        .ifndef PIT_RELOAD
        .set    PIT_RELOAD, 0
        .endif

        .set    PERIOD, 18              # ticks in a period
        .if     DUTY < 0 || DUTY > PERIOD
        .error  "DUTY must be 0 to 18"
        .endif
        .set    BIOS_TICKS, 0x046c      # the firmware counts timer ticks here
        .set    NMI_VECTOR, 2 * 4       # where real mode looks for the NMI handler
        .set    START_PAGE, 0x08        # secondaries start at this page, 0x8000
        .set    START, START_PAGE << 12
        .set    STACKS, 0x7000          # the secondaries' stacks, downwards
        .set    COM1, 0x3f8
        .set    PIT_CHANNEL_0, 0x40
        .set    PIT_COMMAND, 0x43

        # The local APIC's interrupt command register, its two halves, and the
        # commands that we give it: two for all vCPUs but the sender, and one for
        # the vCPU whose id is in the top byte of the high half.
        .set    APIC_ICR, 0xfee00300
        .set    APIC_ICR_HIGH, 0xfee00310
        .set    SEND_INIT, 0xc4500
        .set    SEND_START, 0xc4600 + START_PAGE
        .set    SEND_NMI, 0x04400

        .globl  _start
_start: cli
        ljmp    $0, $primary            # some firmware jumps to 07c0:0000

# ---- vCPU 0 -----------------------------------------------------------------

primary:
        xor     %bx, %bx                # bx: which vCPU this is, here and below
        mov     %bx, %ds
        mov     %bx, %ss
        mov     $_start, %sp            # the stack grows down from our first byte

        .if     PIT_RELOAD
        mov     $0x34, %al              # channel 0, low then high byte, mode 2
        out     %al, $PIT_COMMAND
        mov     $(PIT_RELOAD & 0xff), %al
        out     %al, $PIT_CHANNEL_0
        mov     $(PIT_RELOAD >> 8), %al
        out     %al, $PIT_CHANNEL_0
        .endif

        # A secondary starts at the beginning of a 4 KiB page, and 0x7c00 is not
        # one. So we put a far jump (0xea, offset, segment 0) where they start.
        movb    $0xea, START
        movl    $secondary, START + 1

        # The interrupt that wakes them is an NMI: it is taken even by a local
        # APIC that nobody has set up and it needs no acknowledgement, which
        # saves each secondary the way to its own APIC.
        movl    $woken, NMI_VECTOR

        # INIT puts the others into the state that waits for a start command;
        # the processor manuals ask for 10 ms between the two. The first `hlt`
        # ends with the tick that happens to come next, so wait for one more.
        mov     $SEND_INIT, %eax
        call    send
        sti
        hlt
        hlt
        cli
        mov     $SEND_START, %eax
        call    send
        call    announce

        # Interrupts stay off except around `hlt` and for one instruction in each
        # round of the spin. `sti` lets nothing in until the instruction after it
        # has begun, so no tick can slip between the comparison and the `hlt`.
count:  cli
        mov     BIOS_TICKS, %al
        cmp     last_tick, %al
        je      act
        mov     %al, last_tick
        mov     phase, %al
        inc     %al
        cmp     $PERIOD, %al
        jb      1f
        xor     %al, %al
1:      mov     %al, phase

        # Wake the others one by one, those that have started: a vCPU that is added
        # while the guest runs waits to be started, and under KVM an NMI makes it
        # wait in a busy loop. The ids of the first vCPUs are 0, 1, 2 ...
        mov     $SEND_NMI, %eax
        movzbl  others, %ebp
wake:   test    %bp, %bp
        jz      act
        mov     %ebp, %edx
        shl     $24, %edx
        call    send
        dec     %bp
        jmp     wake

act:    call    compare
        ja      spin
        sti
        hlt
        jmp     count
spin:   sti
        nop
        jmp     count

# Give the local APIC the command in eax, for the vCPU whose id is in the top byte
# of edx (SEND_INIT and SEND_START go to all the others anyway). The APIC's
# registers are in memory just under 4 GiB, out of reach of real mode, whose
# segments end at 64 KiB. The limit is checked against the segment register's
# hidden part, and that is only written when the register is loaded: load fs in
# protected mode with a 4 GiB segment, go back, and the limit stays ("unreal
# mode"). It is done anew for each command, because a firmware's interrupt handlers
# may load fs again. To be called with interrupts off.
send:   lgdt    gdt_register
        mov     %cr0, %ecx
        or      $1, %cl
        mov     %ecx, %cr0              # protected mode on
        mov     $(flat - gdt), %si
        mov     %si, %fs
        and     $0xfe, %cl
        mov     %ecx, %cr0              # and off
        mov     $APIC_ICR, %edi
        addr32 mov %edx, %fs:APIC_ICR_HIGH - APIC_ICR(%edi)
        addr32 mov %eax, %fs:(%edi)     # writing the low half sends
        ret

# ---- the other vCPUs --------------------------------------------------------

# Each begins here with its registers reset. It asks `cpuid` which vCPU it is and
# takes 64 bytes of stack of its own, which the NMI needs.
secondary:
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %ss
        mov     $1, %eax
        cpuid
        shr     $24, %ebx               # the APIC id, in bits 24..31
        mov     %bx, %ax
        shl     $6, %ax
        mov     $STACKS, %sp
        sub     %ax, %sp
        call    announce
        lock incb others
follow: call    compare
        ja      follow
        hlt                             # until the next tick's NMI
        jmp     follow

woken:  iret

# ---- for all of them --------------------------------------------------------

# Compare the duty of vCPU bx with its place in its period: "above" means spin.
compare:
        mov     phase, %al
        add     starts(%bx), %al
        cmp     $PERIOD, %al
        jb      1f
        sub     $PERIOD, %al
1:      cmp     %al, duties(%bx)
        ret

announce:
        mov     $COM1, %dx
        lea     '0'(%bx), %ax
        out     %al, %dx
        ret

phase:  .byte   0                       # 0..17, written by vCPU 0 only
others: .byte   0                       # how many secondaries have started
last_tick:
        .byte   0                       # the low byte of the last tick seen

        .macro  duty_of vcpu
        .ifdef  DUTY_\vcpu
        .byte   DUTY_\vcpu
        .else
        .byte   DUTY
        .endif
        .endm
duties: .irp    vcpu, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        duty_of \vcpu
        .endr

        # How far vCPU n is ahead of `phase`: halves, quarters, eighths and then
        # sixteenths of a period, so that the first few are as far apart as can be.
starts: .byte   0, 9, 4, 13, 2, 11, 6, 15, 1, 10, 5, 14, 3, 12, 7, 16

        # Two segments: the null one that must be first, and 4 GiB of data at 0.
gdt:    .quad   0
flat:   .quad   0x00cf92000000ffff
gdt_register:
        .word   . - gdt - 1
        .long   gdt

        # What tells the firmware that this is a boot sector.
        .org    510
        .word   0xaa55
