// Package build says which build this is.
package build

import "runtime/debug"

// version is set by the linker at a release: -X .../internal/build.version=v1.2.3.
var version = ""

// Version is the release's version, or the commit that this was built from.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			revision = s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "-modified"
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + modified
}
