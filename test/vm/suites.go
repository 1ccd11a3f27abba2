package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/pwd-project/pwd/test/vm/job"
)

// Suite is the tests of one package that run in the machines.
type Suite struct {
	// Package is its folder in the module. Its tests are built with the tag vm.
	Package string
	// Run is the pattern of the tests to run; "" is all.
	Run string
	// Limit ends it on one kernel.
	Limit time.Duration
	// Tools are what its tests run.
	Tools []Tool
	// Build are programs of this module that its tests start: main packages,
	// built without cgo. The test finds them in the folder that PWD_BIN names.
	Build []string
	// Upgrade has them built once more, as version v9.9.9, in the folder upgrade there.
	Upgrade bool
	// Packages are versions of which the .deb is built (make package): pwd_VERSION.deb there.
	Packages []string
	// Newest has it run on the newest kernel alone, unless kernels are named: what it tests
	// is the same on all. Where it is set stands why.
	Newest bool
	// Args are further arguments of the tests.
	Args []string
}

// Suites are all tests that run in the machines, in this order.
var Suites = []Suite{
	{
		Package: "pkg/bridge", Limit: 4 * time.Minute,
		Run: "^(TestSupports|TestVLANs|TestVLANDevice|TestVLANFrames|TestExternalVLANs|TestNoLeakWhileAttaching|TestVLANCrashes|TestSilence)$",
	},
	{Package: "pkg/qos", Limit: 3 * time.Minute},
	{Package: "pkg/underlay", Limit: 2 * time.Minute, Run: "^TestVRFOf$", Newest: true}, // VRFs are the same on both
	{
		Package: "pkg/l2tpv3/transport", Limit: 5 * time.Minute,
		Run: "^(TestKernel.*|TestNoKernelIP|TestConnectionIP|TestWireIP|TestHeaderOptionsIP|TestConnectionsOfOnePair|TestEndpoints|TestRestoreIP|TestFragmentsIP|TestDataSessions|TestNoLeaksIP|TestDynamicAddressChanges|TestPathMTU)$",
	},
	{Package: "test/vm/datapath", Limit: 15 * time.Minute, Tools: []Tool{PPP}},
	{
		Package: "test/e2e", Limit: 12 * time.Minute,
		Run:   "^(TestTraffic|TestTenantsAreApart|TestDevicesAreSilent|TestOtherVLANsStayOut|TestTagIsInThePayload|TestTags|TestStormControl|TestCleanup|TestVLANDevicesKeepTheirFrames|TestRebootedPeer|TestBrokenTopologyChangesNothing|TestOverlappingNetworks|TestHostMoves|TestFailover|TestSteering|TestDrift|TestKernelRestartLosesNothing|TestKernelCookiesRotate|TestCookiesRotateCrossed|TestClockIsSet|TestSuppression|TestLoop|TestVRF|TestStatic|TestStaticAgainstTheKernel|TestImport|TestTrafficResumes|TestTrafficResumesAfterNewAddress|TestEveryCellSignalled|TestShares|TestDepartureTimes|TestManyPseudowires)$",
		Tools: []Tool{TShark}, Build: []string{"cmd/pwd", "cmd/pwctl"},
	},
	{
		// It is about systemd, which is the same on all kernels. That a kernel's tunnels go on while
		// another process gets their sockets TestKernelRestartLosesNothing shows on each.
		Package: "test/service", Limit: 7 * time.Minute, Run: "^(TestKernelDatapath|TestPackage)$", Newest: true,
		Build: []string{"cmd/pwd", "cmd/pwctl"}, Upgrade: true, Packages: []string{"0.0.1"},
	},
}

// BuildSuite builds the test binary of a suite below dir and returns the step
// that runs it. verbose names each test.
func BuildSuite(ctx context.Context, s Suite, dir string, verbose bool, log io.Writer) (job.Step, error) {
	root, err := ModuleRoot()
	if err != nil {
		return job.Step{}, err
	}
	bin := filepath.Join(dir, path.Base(s.Package)+".test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "vm", "-o", bin, "./"+s.Package)
	build.Dir, build.Stdout, build.Stderr = root, log, log
	if err := build.Run(); err != nil {
		return job.Step{}, fmt.Errorf("build the tests of %s: %w", s.Package, err)
	}
	step := job.Step{
		Name: s.Package, Dir: filepath.Join(root, s.Package), Limit: s.Limit, Tests: true,
		// The binary's own limit prints where it hangs; the step's would not.
		Args: []string{bin, "-test.paniconexit0", "-test.timeout", (s.Limit - 2*time.Second).String()},
	}
	if len(s.Build) > 0 {
		programs := filepath.Join(dir, path.Base(s.Package)+".bin") + "/"
		builds := map[string]string{programs: ""}
		if s.Upgrade {
			builds[programs+"upgrade/"] = "-X github.com/pwd-project/pwd/internal/build.version=v9.9.9"
		}
		for to, flags := range builds {
			build := exec.CommandContext(ctx, "go", "build", "-ldflags", flags, "-o", to)
			for _, p := range s.Build {
				build.Args = append(build.Args, "./"+p)
			}
			build.Dir, build.Stdout, build.Stderr = root, log, log
			build.Env = append(os.Environ(), "CGO_ENABLED=0")
			if err := build.Run(); err != nil {
				return job.Step{}, fmt.Errorf("build %s for the tests of %s: %w", strings.Join(s.Build, ", "), s.Package, err)
			}
		}
		step.Env = []string{"PWD_BIN=" + programs}
		if err := s.buildPackages(ctx, root, programs, log); err != nil {
			return job.Step{}, err
		}
	}
	if s.Run != "" {
		step.Args = append(step.Args, "-test.run", s.Run)
	}
	if verbose {
		step.Args = append(step.Args, "-test.v")
	}
	step.Args = append(step.Args, s.Args...)
	return step, nil
}

// buildPackages builds what the tests install.
func (s *Suite) buildPackages(ctx context.Context, root, to string, log io.Writer) error {
	for _, version := range s.Packages {
		out, err := exec.CommandContext(ctx, "make", "-C", root, "package", "VERSION="+version).CombinedOutput()
		if err != nil {
			log.Write(out)
			return fmt.Errorf("build the package %s for the tests of %s: %w", version, s.Package, err)
		}
		built, err := filepath.Glob(filepath.Join(root, "out", "pwd_"+version+"-*.deb"))
		if err != nil || len(built) != 1 {
			return fmt.Errorf("make package VERSION=%s left the packages %q, %v", version, built, err)
		}
		deb, err := os.ReadFile(built[0])
		if err != nil {
			return err
		}
		if err := errors.Join(os.MkdirAll(to, 0o755), os.WriteFile(filepath.Join(to, "pwd_"+version+".deb"), deb, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// ModuleRoot is the folder with this module's go.mod, at or above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("vm: no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}
