// Package vm boots stock Debian kernels and runs tests in them: the kernel's
// own L2TP, and eBPF on kernels other than the host's.
//
// A machine is QEMU without hardware virtualisation (TCG), so it runs wherever
// the tests do. Its root is the host's file system, read-only over 9p under a
// tmpfs: whatever is installed on the host, and this tree, is there, and nothing
// done there reaches the host. A boot takes about five seconds; programs run an
// order of magnitude slower than on the host.
//
//	go run ./test/vm/run -suites              # all tests, on their kernels, one boot each
//	go run ./test/vm/run -suites -only datapath -run TestKernel -kernels 6.1 -v
//	go run ./test/vm/run 'modprobe l2tp_eth && ip l2tp show tunnel'
//
// What it lacks (QEMU, the tools of the suites) it installs with apt-get and
// says so; kernels are downloaded once, to CacheDir. Nothing is ever skipped: a
// kernel that cannot be had or does not boot, a suite that runs no test, and a
// kernel that complains on its console are failures.
//
// # To add tests
//
// Name the package in Suites, with a limit (for one kernel, on a busy machine) and
// the tools that its tests run. All its tests run, or those that match Run. A
// file of tests that only make sense in the machine gets `//go:build vm`: then
// `go test ./...` on a host leaves it out, and `go vet -tags vm ./...` still reads it.
//
// The test binary runs as root in the initial namespaces, with modules loading
// as usual, bpffs at /sys/fs/bpf, cgroup2, and no network but lo. Its working
// directory is its package's, as under `go test`. PWD_VM is the kernel's series
// ("6.1"), CI is as on the host, and what is written to the folder job.Dir reaches
// Machine.Share.
//
// Programs that the tests start (pwd, pwctl) are built on the host, where that is
// quick: the suite's Build names their packages, and the tests find them in the
// folder PWD_BIN. There are the .deb of the suite's Packages, too.
package vm
