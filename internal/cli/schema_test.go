package cli_test

import (
	"testing"

	"github.com/pwd-project/pwd/internal/topology"
)

func TestSchemaNeedsNoDaemon(t *testing.T) {
	check(t, "/nonexistent/pwd.sock", command{args: "schema"}, want{stdout: string(topology.JSONSchema())})
	check(t, "/nonexistent/pwd.sock", command{args: "schema topology"}, want{stdout: string(topology.JSONSchema())})
	check(t, "/nonexistent/pwd.sock", command{args: "schema config"}, want{stdout: string(topology.ConfigJSONSchema())})
}
