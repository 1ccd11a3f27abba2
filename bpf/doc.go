// Package bpf holds the programs of the eBPF datapath: their C sources, the
// objects compiled from them, and the maps through which the agent and the
// programs speak, with Go types.
//
// The objects are committed, so that building needs no clang. "go generate"
// compiles them again; clang 14 and the headers of libbpf give the same octets.
//
// # What belongs to whom
//
// Load puts maps and programs into the kernel; attaching is the caller's. With a
// pin directory the maps outlive the process, and the next one that loads takes
// them over as they are: it finds what its predecessor wrote and the programs
// that are still attached see what it writes. Without, each process has maps of
// its own, and its predecessor's programs go on with theirs until replaced.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel,bpfeb -cc clang -strip llvm-strip -cflags "-O2 -mcpu=v3 -mllvm -no-stack-slot-sharing -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type counters -type transmit -type receive -type flow -type order -type circuit -type circuit_key -type held_frame -type turn_key -type rule -type steer object pwd.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel,bpfeb -cc clang -strip llvm-strip -cflags "-O2 -mcpu=v3 -mllvm -no-stack-slot-sharing -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type service -type refusals nsp nsp.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel,bpfeb -cc clang -strip llvm-strip -cflags "-O2 -mcpu=v3 -mllvm -no-stack-slot-sharing -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type neighbour_key -type neighbour -type station_key -type suppressions suppress suppress.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel,bpfeb -cc clang -strip llvm-strip -cflags "-O2 -mcpu=v3 -mllvm -no-stack-slot-sharing -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type exit spread spread.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel,bpfeb -cc clang -strip llvm-strip -cflags "-O2 -mcpu=v3 -mllvm -no-stack-slot-sharing -Wall -Wextra -Werror -Wno-sign-compare -Wno-unused-parameter -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu" -type pace -type pace_key -type departures pacing pacing.c

// Layout is the version of the layouts of pinned maps (maps.h, service.h, steer.h, storm.h,
// pacing.c). It is part of the name under which they are pinned: maps of another layout are
// not taken over.
const Layout = 8
