# tiny_kernel: for the tests that need a guest which does one thing. Sourced.
#
# Writes a flat multiboot 1 kernel (Multiboot Specification 0.6.96 §3.1, with the address fields) whose code is given as
# printf escapes: tiny_kernel FILE CODE. It runs in 32-bit protected mode at 0x100030.
tiny_kernel() {
    # magic, flags (bit 16: address fields), checksum; header, load, load end, bss end, entry; padding to 0x30
    printf '\002\260\255\033\000\000\001\000\376\117\121\344' >"$1"
    printf '\000\000\020\000\000\000\020\000\000\000\000\000\000\000\000\000\060\000\020\000' >>"$1"
    printf '\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000\000' >>"$1"
    printf "$2" >>"$1"
}

hlt='\372\364\353\375'                                       # cli; hlt; jmp back to the hlt
guest_debug_exit='\260\020\346\364'$hlt                      # mov al, 16; out 0xf4, al: status 33
guest_reset='\260\376\346\144'$hlt                           # mov al, 0xfe; out 0x64, al
guest_triple_fault='\017\001\035\000\000\020\000\017\013'    # lidt [0x100000], which points at zeros; ud2
guest_loop='\353\376'                                        # jmp to itself
guest_power_off='\146\272\004\006\146\270\000\040\146\357'$hlt # mov dx, 0x604; mov ax, 0x2000; out dx, ax
guest_print='\260\150\346\351\260\151\346\351'$guest_debug_exit # 'h', 'i' to port 0xe9
