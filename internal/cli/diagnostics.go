package cli

import (
	"strings"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/secretfile"
	"github.com/pwd-project/pwd/internal/topology"
)

// validateTopology is what the topology's reader finds wrong with a document.
func validateTopology(name string, document []byte) []api.Diagnostic {
	t, found := topology.Parse(name, document)
	if t != nil {
		found = append(found, t.CheckSecrets(secretfile.In(directory(name)))...)
	}
	return api.DiagnosticsOf(found)
}

// diagnostics prints diagnostics on standard error, for people.
func (a *app) diagnostics(list []api.Diagnostic) {
	// Nobody can be told that standard error failed.
	_ = api.TopologyDiagnostics(list).Format(a.Stderr)
}

func countDiagnostics(list []api.Diagnostic) (failures, warnings int) {
	for _, d := range list {
		if d.Severity == string(topology.SeverityError) {
			failures++
		} else {
			warnings++
		}
	}
	return failures, warnings
}

// tally is "2 errors, 1 warning".
func tally(failures, warnings int) string {
	parts := []string{counted(failures, "error")}
	if warnings > 0 {
		parts = append(parts, counted(warnings, "warning"))
	}
	return strings.Join(parts, ", ")
}
