package traffic

// Compiler and headers are those of pkg/datapath (bpf/README.md): the objects are compared.
//go:generate go tool bpf2go -cc clang-16 -strip llvm-strip-16 -target bpfel -tags linux -cflags "-O2 -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -nostdinc -isystem ../../bpf/include/vendor" traffic bpf/traffic.bpf.c
