package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/spf13/cobra"
)

func (a *app) describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Show everything about a tunnel, session, pseudowire, attachment or class",
		Long: "Show everything about one thing, with the last changes of its state and their reasons.\n" +
			"If several answer to the name, as the ends of a tunnel of three sites do, each is shown.\n" +
			"A session is named by its pseudowire or by its local session ID.",
		Example:           "  pwctl describe tunnel gold\n  pwctl describe pseudowire tenant-a",
		Args:              arguments(kindAndName),
		ValidArgsFunction: a.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, _ := findResource(args[0])
			return a.describe(cmd.Context(), r, args[1])
		},
	}
}

func kindAndName(cmd *cobra.Command, args []string) error {
	if err := knownKind(cmd, args); err != nil {
		return err
	}
	if len(args) != 2 {
		return fmt.Errorf("want a kind and one name, got %s", counted(len(args), "argument"))
	}
	return nil
}

func (a *app) describe(ctx context.Context, r resource, name string) error {
	c := a.client()
	defer c.Close()
	all, err := r.list(ctx, c)
	if err != nil {
		return err
	}
	found, missing := find(all, []string{name})
	if len(missing) > 0 {
		return notFoundError(r, missing, all)
	}
	for i, it := range found {
		p := &page{colour: a.colour(), location: a.Location}
		if i > 0 {
			p.text.WriteByte('\n')
		}
		if err := r.describe(ctx, c, it, p); err != nil {
			return err
		}
		if err := p.flush(a.Stdout); err != nil {
			return err
		}
	}
	return nil
}

// page collects what is described: headings, and under each aligned fields.
type page struct {
	text     strings.Builder
	rows     [][]string
	indent   string
	colour   bool
	location *time.Location
	err      error
}

// title begins the page: a name and its state.
func (p *page) title(name, state string, since int64, reason string) {
	line := printable(name)
	if state != "" {
		line += ": " + coloured(p.colour, state, printable(state)) + " for " + lasted(since)
	}
	if reason != "" {
		line += ", " + printable(reason)
	}
	p.text.WriteString(line + "\n")
	p.indent = "  "
}

// section ends the fields above and begins a heading.
func (p *page) section(heading string) {
	p.close()
	p.text.WriteString("\n" + printable(heading) + "\n")
}

// field adds one line under the last heading.
func (p *page) field(name, value string) { p.row(name, orNone(value)) }

func (p *page) row(cells ...string) {
	cells[0] = p.indent + cells[0]
	p.rows = append(p.rows, cells)
}

func (p *page) close() {
	if err := (table{rows: p.rows, state: -1}).write(&p.text, false); err != nil && p.err == nil {
		p.err = err
	}
	p.rows = nil
}

func (p *page) flush(w io.Writer) error {
	p.close()
	if p.err != nil {
		return p.err
	}
	_, err := io.WriteString(w, p.text.String())
	return err
}

// traffic adds the four counters and the drops by reason.
func (p *page) traffic(rxFrames, rxOctets, txFrames, txOctets uint64, dropped map[string]uint64) {
	p.section("Traffic")
	p.field("Received", volume(rxFrames, rxOctets))
	p.field("Transmitted", volume(txFrames, txOctets))
	for _, reason := range slices.Sorted(maps.Keys(dropped)) {
		p.field("Dropped, "+reason, strconv.FormatUint(dropped[reason], 10))
	}
}

// volume is frames and octets, exact and readable.
func volume(frames, n uint64) string {
	s := fmt.Sprintf("%d frames, %d octets", frames, n)
	if n >= 1024 {
		s += " (" + octets(n) + ")"
	}
	return s
}

// cause adds who decided what, and what to do about it.
func (p *page) cause(c *api.Cause, next string) {
	if c != nil {
		p.field("Cause", causeWords(c))
	}
	if next != "" {
		p.field("Do", next)
	}
}

// causeWords are a cause on one line: "closed by the peer: StopCCN, result 6, error 0".
func causeWords(c *api.Cause) string {
	s := c.Kind
	switch c.By {
	case "here":
		s += ", decided here"
	case "peer":
		s += ", decided by the peer"
	case "":
	default:
		s += ", decided by " + c.By
	}
	if c.Message != "" {
		s += ": " + c.Message
	}
	if c.Sent > 0 {
		s += fmt.Sprintf(", sent %d times", c.Sent)
	}
	if c.Result != 0 {
		s += fmt.Sprintf(", result %d, error %d (%s)", c.Result, c.Error, c.Meaning)
	}
	if c.Text != "" {
		s += fmt.Sprintf(": %q", c.Text)
	}
	return s
}

// controlMessages adds the counters that are not 0.
func (p *page) controlMessages(counters map[string]uint64) {
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		if n := counters[name]; n > 0 && name != "retransmitted" {
			p.field("Counted, "+name, strconv.FormatUint(n, 10))
		}
	}
}

// history adds the transitions, the last one at the end.
func (p *page) history(heading string, h []api.Transition) {
	if len(h) == 0 {
		return
	}
	p.section(heading)
	for _, t := range h {
		change := orNone(t.From)
		if t.To != t.From {
			change += " to " + orNone(t.To)
		}
		reason := orNone(t.Reason)
		if t.Times > 1 && t.First != nil {
			reason += fmt.Sprintf(" (%d times since %s)", t.Times, p.time(*t.First))
		}
		p.row(p.time(t.Time), change, orNone(t.Event), reason)
	}
}

func (p *page) time(t time.Time) string { return moment(t, p.location) }

// moment is a time for people, to the millisecond, which the order of a few
// control messages needs.
func moment(t time.Time, loc *time.Location) string {
	if t.IsZero() {
		return none
	}
	return t.In(loc).Format("2006-01-02 15:04:05.000")
}

func describeTunnel(ctx context.Context, c *api.Client, it item, p *page) error {
	t := it.value.(api.Tunnel)
	list, err := c.Sessions(ctx)
	if err != nil {
		return err
	}
	p.title("Tunnel "+t.Name+" to "+t.Peer, t.State, t.SinceSeconds, t.Reason)
	p.cause(t.Cause, t.Next)
	p.field("Encapsulation", t.Encapsulation)
	path := number(uint32(t.PathMTU))
	if t.BlackHole {
		path += ", longer packets are lost on the way and no router says so"
	}
	p.field("Path MTU", path)
	p.field("Hello", strconv.FormatFloat(t.HelloSeconds, 'g', -1, 64)+"s")
	p.field("Authenticated", yesNo(t.Authenticated))
	p.field("ECN", yesNo(t.ECN))
	p.section("This end")
	p.field("Address", t.Local)
	p.field("Host name", t.HostName)
	p.field("Router ID", t.RouterID)
	p.field("Control connection ID", number(t.LocalControlConnectionID))
	p.field("Role", t.Role)
	p.section("Peer")
	p.field("Address", t.Remote)
	p.field("Host name", t.PeerHostName)
	p.field("Router ID", t.PeerRouterID)
	p.field("Vendor", t.PeerVendor)
	if t.PeerNumbers != "" {
		p.field("Attribute numbers", t.PeerNumbers)
	}
	p.field("Capabilities", strings.Join(t.PeerCapabilities, ", "))
	p.field("Control connection ID", number(t.RemoteControlConnectionID))
	p.section("Control messages")
	p.field("Next to send (Ns)", strconv.Itoa(int(t.Ns)))
	p.field("Next expected (Nr)", strconv.Itoa(int(t.Nr)))
	p.field("Peer's receive window", number(t.PeerWindow))
	p.field("Congestion window", number(uint32(t.CongestionWindow)))
	p.field("Round trip", roundTrip(t.RTTSeconds))
	p.field("Last heard", heard(t))
	p.field("Unacknowledged", unacknowledged(t))
	p.field("Queued", strconv.Itoa(t.Queued))
	p.field("Retransmitted", strconv.FormatUint(t.Retransmits, 10))
	p.controlMessages(t.ControlMessages)
	p.traffic(t.ReceivedFrames, t.ReceivedOctets, t.TransmittedFrames, t.TransmittedOctets, nil)
	p.section("Sessions: " + strconv.Itoa(t.Sessions))
	for _, s := range list {
		if s.Tunnel == t.Name && s.Peer == t.Peer {
			p.row(s.Pseudowire, s.State, "for "+lasted(s.SinceSeconds), s.Reason)
		}
	}
	p.history("History", t.History)
	return nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// roundTrip is a time for people; what was not measured is nothing.
func roundTrip(seconds float64) string {
	if seconds == 0 {
		return none
	}
	return time.Duration(seconds * float64(time.Second)).Round(10 * time.Microsecond).String()
}

func heard(t api.Tunnel) string {
	if t.Role == "" {
		return none
	}
	return lasted(t.HeardSeconds) + " ago"
}

// unacknowledged is how many messages there are, and what becomes of them.
func unacknowledged(t api.Tunnel) string {
	s := strconv.Itoa(t.Unacknowledged)
	if t.Unacknowledged > 0 {
		s += fmt.Sprintf(", repeats: %d, again in %.1fs", t.Tries, t.RetransmitSeconds)
	}
	return s
}

func describeSession(_ context.Context, _ *api.Client, it item, p *page) error {
	s := it.value.(api.Session)
	p.title("Session of "+s.Pseudowire+" to "+s.Peer, s.State, s.SinceSeconds, s.Reason)
	p.cause(s.Cause, "")
	sessionFields(p, s)
	p.traffic(s.ReceivedFrames, s.ReceivedOctets, s.TransmittedFrames, s.TransmittedOctets, s.Drops)
	p.history("History", s.History)
	return nil
}

func sessionFields(p *page, s api.Session) {
	p.field("Tunnel", s.Tunnel)
	p.field("Local session ID", number(s.LocalSessionID))
	p.field("Remote session ID", number(s.RemoteSessionID))
	p.field("Cookie", counted(s.CookieOctets, "octet"))
	p.field("Local circuit", s.LocalCircuit)
	p.field("Remote circuit", s.RemoteCircuit)
	circuitErrors(p, "Errors of the local circuit", s.LocalErrors)
	circuitErrors(p, "Errors of the remote circuit", s.RemoteErrors)
}

// circuitErrors adds what there are of an attachment circuit's errors.
func circuitErrors(p *page, heading string, errors map[string]uint64) {
	if len(errors) > 0 {
		p.section(heading)
	}
	for _, kind := range slices.Sorted(maps.Keys(errors)) {
		p.field(kind, strconv.FormatUint(errors[kind], 10))
	}
}

func describePseudowire(ctx context.Context, c *api.Client, it item, p *page) error {
	pw := it.value.(api.Pseudowire)
	list, err := c.Sessions(ctx)
	if err != nil {
		return err
	}
	circuits, err := c.Attachments(ctx)
	if err != nil {
		return err
	}
	p.title("Pseudowire "+pw.Name+" to "+pw.Peer, pw.State, pw.SinceSeconds, pw.Reason)
	p.cause(pw.Cause, pw.Next)
	p.field("Type", pw.Type)
	p.field("Tunnel", pw.Tunnel)
	p.field("Device", pw.Device)
	p.field("Datapath", pw.Datapath)
	p.field("MTU", number(uint32(max(pw.MTU, 0))))
	p.field("Attachment", pw.Attachment)
	if pw.StormControl != "" {
		p.field("Storm control", pw.StormControl)
	}
	if pw.Police != 0 {
		p.field("Policed to", bitRate(pw.Police))
	}
	if pw.SuppressedRequests != nil {
		p.field("Suppressed ARP and ND requests", strconv.FormatUint(*pw.SuppressedRequests, 10))
	}
	for _, ac := range circuits {
		if ac.Pseudowire == pw.Name {
			p.section("Attachment circuit: " + orNone(ac.State))
			attachmentFields(p, ac)
		}
	}
	describeRedundancy(p, pw.Redundancy)
	describeSteering(p, pw.Steering)
	p.traffic(pw.ReceivedFrames, pw.ReceivedOctets, pw.TransmittedFrames, pw.TransmittedOctets, pw.Drops)
	for _, s := range list {
		if s.Pseudowire != pw.Name || s.Peer != pw.Peer {
			continue
		}
		heading := "Session on " + s.Tunnel + ": " + s.State + " for " + lasted(s.SinceSeconds)
		if s.Reason != "" {
			heading += ", " + s.Reason
		}
		p.section(heading)
		sessionFields(p, s)
		p.history("History of the session on "+s.Tunnel, s.History)
	}
	return nil
}

func describeAttachment(_ context.Context, _ *api.Client, it item, p *page) error {
	ac := it.value.(api.Attachment)
	p.title("Attachment of "+ac.Pseudowire, "", 0, "")
	p.field("State", ac.State)
	attachmentFields(p, ac)
	return nil
}

func describeMAC(_ context.Context, _ *api.Client, it item, p *page) error {
	m := it.value.(api.MAC)
	p.title("MAC address "+m.Address, "", 0, "")
	p.field("Bridge", m.Bridge)
	p.field("VLAN", number(m.VLAN))
	p.field("Port", m.Port)
	p.field("Peer", m.Peer)
	p.field("Pseudowire", m.Pseudowire)
	p.field("Since", lasted(m.SinceSeconds))
	p.field("Idle", lasted(m.IdleSeconds))
	return nil
}

func attachmentFields(p *page, ac api.Attachment) {
	p.field("Bridge", ac.Bridge)
	p.field("Interface", ac.Interface)
	p.field("VLAN", number(ac.VLAN))
	if ac.Frames != "" {
		p.field("Frames", ac.Frames)
	}
	p.field("Device", ac.Device)
	if ac.PrivateBridge != "" {
		p.field("Private bridge", ac.PrivateBridge)
	}
	p.field("Cross-connected", yesNo(ac.CrossConnected))
	p.field("Reason", ac.Reason)
}

func describeClass(_ context.Context, _ *api.Client, it item, p *page) error {
	c := it.value.(api.Class)
	p.title("Class "+c.Name, "", 0, "")
	p.field("DSCP", cmp.Or(c.DSCPFrom, strconv.Itoa(int(c.DSCP))))
	if c.Rate == 0 && c.Ceiling == 0 && len(c.Tunnels) == 0 {
		return nil
	}
	p.field("Rate", bitRate(c.Rate))
	p.field("Ceiling", bitRate(c.Ceiling))
	p.field("Priority", strconv.Itoa(int(c.Priority)))
	if c.Queue != 0 {
		p.field("Queue", strconv.FormatUint(uint64(c.Queue), 10))
	}
	p.sent(c.Octets, c.Frames, c.Achieved, c.Drops, c.Marked, c.DropsByReason)
	p.field("Backlog", fmt.Sprintf("%d octets, %d frames", c.BacklogOctets, c.BacklogFrames))
	for _, t := range c.Tunnels {
		p.section("Tunnel " + t.Tunnel + "/" + t.Peer)
		p.field("Interface", t.Interface)
		p.field("Pseudowires", strings.Join(t.Pseudowires, ", "))
		p.sent(t.Octets, t.Frames, t.Achieved, t.Drops, t.Marked, t.DropsByReason)
		backlog := fmt.Sprintf("%d octets, %d frames", t.BacklogOctets, t.BacklogFrames)
		if t.DelayMicroseconds > 0 {
			backlog += fmt.Sprintf(", for %d µs", t.DelayMicroseconds)
		}
		p.field("Backlog", backlog)
	}
	return nil
}

// sent adds what was sent and dropped, altogether and of late.
func (p *page) sent(octets, frames, achieved, drops, marked uint64, byReason map[string]uint64) {
	p.field("Sent", fmt.Sprintf("%d octets, %d frames", octets, frames))
	if achieved > 0 {
		p.field("Of late", fmt.Sprintf("%d bit/s", achieved))
	}
	p.field("Dropped", fmt.Sprintf("%d frames", drops))
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		p.field("Dropped, "+reason, strconv.FormatUint(byReason[reason], 10))
	}
	if marked > 0 {
		p.field("Marked", fmt.Sprintf("%d frames", marked))
	}
}
