"""RandomX by its library: the hashes that its authors publish for it (tests/tests.cpp of tevador/RandomX, version 1), by each kind of code
that the library has: interpreted and compiled, AES by instructions and by tables, Argon2 with and without vectors."""
import ctypes

HARD_AES, JIT, SECURE, ARGON2_SSSE3, ARGON2_AVX2 = 2, 8, 16, 32, 64  # enum randomx_flags
WAYS = {'interpreted': 0, 'interpreted, AES': HARD_AES, 'compiled': JIT, 'compiled, AES, SSSE3': JIT | HARD_AES | ARGON2_SSSE3,
        'compiled, AES, AVX2, writable or executable': JIT | HARD_AES | ARGON2_AVX2 | SECURE}
DOLOR = b'sed do eiusmod tempor incididunt ut labore et dolore magna aliqua'
BLOCK = bytes.fromhex('0b0b98bea7e805e0010a2126d287a2a0cc833d312cb786385a7c2f9de69d25537f584a9bc9977b00000000666fd8753bf61a8631f12984e3fd44f4014eca'
                      '629276817b56f32e9b68bd82f416')
PUBLISHED = {
    b'test key 000': {
        b'This is a test': '639183aae1bf4c9a35884cb46b09cad9175f04efd7684e7262a0ac1c2f0b4e3f',
        b'Lorem ipsum dolor sit amet': '300a0adb47603dedb42228ccb2b211104f4da45af709cd7547cd049e9489c969',
        DOLOR: 'c36d4ed4191e617309867ed66a443be4075014e2b061bcdaf9ce7b721d2b77a8'},
    b'test key 001': {
        DOLOR: 'e9ff4503201c0c2cca26d285c93ae883f9b1d30c9eb240b820756f2d5a7905fc',
        BLOCK: 'c56414121acda1713c2f2a819d8ae38aed7c80c35c2a769298d34f03833cd5f1'}}

library = ctypes.CDLL('librandomx.so.0')
library.randomx_alloc_cache.restype = library.randomx_create_vm.restype = ctypes.c_void_p


def hashes(flags):
    """A pair for each of the published: what the library computes, and what is published."""
    cache = ctypes.c_void_p(library.randomx_alloc_cache(flags))
    for key, inputs in PUBLISHED.items():
        library.randomx_init_cache(cache, key, ctypes.c_size_t(len(key)))
        vm = ctypes.c_void_p(library.randomx_create_vm(flags, cache, None))
        for text, published in inputs.items():
            out = ctypes.create_string_buffer(32)
            library.randomx_calculate_hash(vm, text, ctypes.c_size_t(len(text)), out)
            yield out.raw.hex(), published
        library.randomx_destroy_vm(vm)
    library.randomx_release_cache(cache)


for way, flags in WAYS.items():
    for found, published in hashes(flags):
        print(way, 'as published' if found == published else 'WRONG', found)
