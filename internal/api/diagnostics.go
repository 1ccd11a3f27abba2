package api

import "github.com/pwd-project/pwd/internal/topology"

// DiagnosticsOf is what the topology's reader found, as it goes over the wire.
func DiagnosticsOf(list topology.Diagnostics) []Diagnostic {
	out := make([]Diagnostic, len(list))
	for i, d := range list {
		out[i] = Diagnostic{
			File: d.File, Line: d.Line, Column: d.Column, Source: d.Source, Caret: d.Caret,
			Severity: string(d.Severity), Code: string(d.Code), Path: d.Path, Message: d.Message, Help: d.Help,
		}
		if o := d.Other; o != nil {
			out[i].Other = &OtherPlace{File: o.File, Line: o.Line, Column: o.Column, Source: o.Source, Caret: o.Caret,
				Message: d.OtherMessage}
		}
	}
	return out
}

// TopologyDiagnostics is the inverse of DiagnosticsOf, for showing them as the
// topology package does.
func TopologyDiagnostics(list []Diagnostic) topology.Diagnostics {
	out := make(topology.Diagnostics, len(list))
	for i, d := range list {
		out[i] = topology.Diagnostic{
			Place:    topology.Place{File: d.File, Line: d.Line, Column: d.Column, Source: d.Source, Caret: d.Caret},
			Severity: topology.Severity(d.Severity), Code: topology.Code(d.Code), Path: d.Path, Message: d.Message, Help: d.Help,
		}
		if o := d.Other; o != nil {
			out[i].Other = &topology.Place{File: o.File, Line: o.Line, Column: o.Column, Source: o.Source, Caret: o.Caret}
			out[i].OtherMessage = o.Message
		}
	}
	return out
}
