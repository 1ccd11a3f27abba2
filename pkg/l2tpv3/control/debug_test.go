package control

import (
	"flag"
	"fmt"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

var traceFlag = flag.Bool("packets", false, "print every packet that is sent in a replayed run")

func (n *network) traceAll() {
	if !*traceFlag {
		return
	}
	n.trace = func(from *host, d Datagram) {
		m, err := l2tpv3.Parse(d.Payload)
		if err != nil {
			fmt.Println(err)
			return
		}
		t, _ := m.Type()
		s := fmt.Sprintf("%10.3f %s %v->%v %v ccid=%x ns=%d nr=%d", n.now.Sub(epoch).Seconds(), from.name, d.Remote.Port(), d.Local.Port(), t, m.ControlConnectionID, m.Ns, m.Nr)
		for _, a := range m.AVPs[min(1, len(m.AVPs)):] {
			switch a := a.(type) {
			case l2tpv3.HostName:
				s += fmt.Sprintf(" host=%s", string(a))
			case l2tpv3.AssignedControlConnectionID:
				s += fmt.Sprintf(" assigned=%x", uint32(a))
			case l2tpv3.ResultCode:
				s += fmt.Sprintf(" result=%d/%d %q", a.Result, a.Error, a.Message)
			case l2tpv3.LocalSessionID:
				s += fmt.Sprintf(" local=%x", uint32(a))
			case l2tpv3.RemoteSessionID:
				s += fmt.Sprintf(" remote=%x", uint32(a))
			case l2tpv3.TieBreaker:
				s += fmt.Sprintf(" tie=%x", a[:3])
			case l2tpv3.RemoteEndID:
				s += fmt.Sprintf(" end=%s", []byte(a))
			}
		}
		fmt.Println(s)
	}
}
