# Short names for what is done often; meson and ninja do the work. docs/HACKING.md explains each.
BUILD ?= build
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skerry
GUEST ?= $(CACHE)/debian-bookworm
RUN ?= --memory 1G --cpus 1 -p 2222:22

.PHONY: all run test check programs san tsan bench fuzz soak fmt install clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	meson setup $(BUILD)

# A Debian guest on this terminal: fetches what is missing, builds, makes the image once, boots it.
run:
	@tools/install-deps build guest
	@$(MAKE) --no-print-directory $(BUILD)/build.ninja
	@ninja -C $(BUILD) skerry
	@mkdir -p $(dir $(GUEST))
	@test -e $(GUEST).img || $(BUILD)/skerry image build debian --out $(GUEST).img --with openssh-server
	@echo 'Booting Debian; Ctrl-a x ends it, Ctrl-a h lists the keys.'
	@$(BUILD)/skerry run --kernel $(GUEST).vmlinuz --initrd $(GUEST).initrd --disk $(GUEST).img \
		--append 'root=/dev/vda console=ttyS0' $(RUN)

# Everything: unit, instruction, guest, boot and command-line tests.
test:
	@tools/install-deps build guest test
	@$(MAKE) --no-print-directory all
	@tools/run-tests $(BUILD)

# The quick ones, under a minute.
check: all
	@tools/run-tests $(BUILD) --suite unit --suite insn

# Real programs in a Debian guest, each of which must print what it prints on the host. CASES="node gcc" for some.
programs:
	@tools/install-deps build guest test
	@$(MAKE) --no-print-directory all
	@for cpus in 1 2; do tests/programs/programs.py $(BUILD)/skerry $$cpus $(CASES) || exit 1; done

# All but the long boot tests under the address and undefined-behaviour sanitizers, and under the thread sanitizer (but for what has
# one thread and compares itself with the host's silicon). The sanitizers' own memory is not the guest's fault.
SAN_TESTS = --suite unit --suite guest --suite fuzz --suite cli
SAN_BOOT = 'boot cloud-amd64 with 1 vCPU, 512M'
SAN_ENV = UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1 RUN_GUEST_ANY_SIZE=1
san:
	@test -e build-san/build.ninja || meson setup build-san -Db_sanitize=address,undefined -Db_lundef=false
	@ninja -C build-san
	@$(SAN_ENV) tools/run-tests build-san $(SAN_TESTS) --suite insn
	@$(SAN_ENV) tools/run-tests build-san $(SAN_BOOT)

tsan:
	@test -e build-tsan/build.ninja || meson setup build-tsan -Db_sanitize=thread -Db_lundef=false
	@ninja -C build-tsan
	@$(SAN_ENV) tools/run-tests build-tsan $(SAN_TESTS)
	@$(SAN_ENV) tools/run-tests build-tsan $(SAN_BOOT)

bench:
	@tools/install-deps build guest bench
	@$(MAKE) --no-print-directory all
	@bench/run $(BUILD)/skerry

# make fuzz T=vm_config [SECONDS=60]; T=all for every fuzzer
fuzz:
	@tools/run-fuzz $(T) $(or $(SECONDS),60)

# Every fuzzer for a minute, real programs, and the whole suite again and again, to find what fails rarely. ROUNDS=20 by default.
soak: all
	@tools/run-fuzz all $(or $(SECONDS),60)
	@for bits in 64 32 16; do $(BUILD)/tests/insn/test_insn --bits $$bits --count 3800000 || exit 1; done
	@for how in '--count 4000000' '--count 2000000 --windows' '--count 1000000 --smc' '--count 200000 --faults' '--count 200000 --stress flush,evict,smc' \
		'--count 200000 --smc --stress smc' '--mode v86 --count 500000' '--mode real --count 100000'; do $(BUILD)/tests/insn/test_seq $$how || exit 1; done
	@tests/boot/lockstep.py $(BUILD)/skerry
	@tests/programs/programs.py $(BUILD)/skerry 1 --engine lockstep --timeout 3600 short
	@$(MAKE) --no-print-directory programs
	@tools/run-tests $(BUILD) --repeat $(or $(ROUNDS),20)

fmt:
	@git ls-files '*.c' | xargs clang-format -i

install: all
	@meson install -C $(BUILD)

clean:
	rm -rf build build-san build-tsan build-fuzz
