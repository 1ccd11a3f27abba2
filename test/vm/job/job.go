// Package job is what the harness outside a virtual machine and process 1
// inside it say to each other.
package job

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

const (
	// File in the initramfs that holds the Job, as JSON.
	File = "/job.json"
	// ModuleDir in the initramfs holds the modules that process 1 loads before it
	// can mount anything, in the order of their names.
	ModuleDir = "/boot-modules"
	// Dir is where a command finds the folder shared with the host, read-write.
	Dir = "/run/vm"
	// resultsFile in the shared folder holds the results.
	resultsFile = "results.json"

	// RootTag, ShareTag and PortName name the devices between host and guest.
	RootTag, ShareTag, PortName = "root", "share", "output"
)

// Job is the work of one boot.
type Job struct {
	// Modules is the folder, as named on the host, with the kernel's modules and modules.dep.
	Modules string
	// Env is the environment of every step.
	Env   []string
	Steps []Step
}

// Step is one command.
type Step struct {
	// Name is how it is reported.
	Name string
	Args []string
	// Dir is the working directory, as named on the host.
	Dir string
	// Env is added to the job's.
	Env []string
	// Limit ends the step; 0 is none.
	Limit time.Duration
	// Tests says that the command is a test binary: to run no test is to fail.
	Tests bool
}

// Result of a step. A job that ended early has fewer results than steps.
type Result struct {
	Name string
	// Status is the exit status; 128 + n for one that signal n ended, 124 for one over its limit.
	Status int
	// Reason says in words why the step failed, where the status does not.
	Reason string `json:",omitempty"`
	Took   time.Duration
}

// Write leaves the results of a job in the shared folder dir.
func Write(dir string, results []Result) error {
	b, err := json.Marshal(results)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, resultsFile+".new")
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, resultsFile))
}

// Read returns the results left in the shared folder dir.
func Read(dir string) ([]Result, error) {
	b, err := os.ReadFile(filepath.Join(dir, resultsFile))
	if err != nil {
		return nil, err
	}
	var results []Result
	return results, json.Unmarshal(b, &results)
}
