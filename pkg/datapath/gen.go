package datapath

// The objects are committed, and the compiler's version is part of what they are: see
// bpf/README.md. Compiler and headers are pinned, so that the result can be compared.
//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -tags linux -type device_flag -type realm_flag -type known_as -type rule -type rule_flag -type egress -type treatment -type counters -type counters_state -type latch_state -type way -type way_kind -type event -type event_kind -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -nostdinc -I../../bpf/include -isystem ../../bpf/include/vendor" tandem ../../bpf/tandem.bpf.c

// What the benchmark compares with.
//go:generate go tool bpf2go -output-suffix _test -cc clang-16 -strip llvm-strip-16 -target bpfel -tags linux -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -nostdinc -I../../bpf/include -isystem ../../bpf/include/vendor" floor ../../bpf/floor.bpf.c
