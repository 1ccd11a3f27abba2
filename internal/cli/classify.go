package cli

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/pcapng"
	"github.com/spf13/cobra"
)

func (a *app) classifyCommand() *cobra.Command {
	out := newFormat(formatText, formatJSON, formatYAML)
	var s synthetic
	var frame, capture string
	cmd := &cobra.Command{
		Use:   "classify PSEUDOWIRE",
		Short: "Say which rule, tunnel and class frames of a pseudowire would take",
		Long: "Say which rule of `steer:`, tunnel, class, DSCP and queue frames would get that come from the\n" +
			"attachment circuit of a pseudowire. The programs and maps that carry the pseudowire answer; nothing\n" +
			"is sent. The frames are given in hexadecimal, in a pcap or pcapng file, or are made of the flags.\n" +
			"The tag of the attachment's own VLAN can be left out.",
		Example: "  pwctl classify tenant-a --pcp 5 --dscp ef --protocol udp --destination-port 5060\n" +
			"  pwctl classify tenant-a --pcap voice.pcap\n" +
			"  pwctl classify tenant-a --frame 02005e00000202005e0000010800...",
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			frames, err := classifiedFrames(cmd, &s, frame, capture)
			if err != nil {
				return err
			}
			c := a.client()
			defer c.Close()
			all, err := c.Classify(cmd.Context(), api.ClassifyRequest{Pseudowire: args[0], Frames: frames})
			if err != nil {
				return err
			}
			return a.showClassified(all, out.value)
		},
	}
	f := cmd.Flags()
	f.StringVar(&frame, "frame", "", "the frame in `HEX`, from its destination address on")
	f.StringVar(&capture, "pcap", "", "a pcap or pcapng `FILE` with frames")
	s.flags(f)
	out.flag(cmd)
	return cmd
}

// classifiedFrames are those that the flags say.
func classifiedFrames(cmd *cobra.Command, s *synthetic, frame, capture string) ([][]byte, error) {
	bad := func(err error) ([][]byte, error) { return nil, &usageError{cmd: cmd.CommandPath(), err: err} }
	switch {
	case (frame != "" || capture != "") && s.given(cmd.Flags()), frame != "" && capture != "":
		return bad(errors.New("--frame, --pcap and what a frame is made of exclude each other"))
	case frame != "":
		b, err := hex.DecodeString(strings.NewReplacer(" ", "", ":", "", "\n", "").Replace(frame))
		if err != nil || len(b) < 14 {
			return bad(errors.New("--frame wants at least 14 octets in hexadecimal"))
		}
		return [][]byte{b}, nil
	case capture != "":
		file, err := os.Open(capture)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		frames, err := pcapng.Frames(file, api.MaxClassified)
		if err != nil {
			return nil, fmt.Errorf("read frames from %s: %w", capture, err)
		}
		return slices.DeleteFunc(frames, func(f []byte) bool { return len(f) < 14 }), nil
	}
	b, err := s.frame()
	if err != nil {
		return bad(err)
	}
	return [][]byte{b}, nil
}

func (a *app) showClassified(all []api.Classification, format string) error {
	if format != formatText {
		return a.write(format, api.List[api.Classification]{Items: all})
	}
	t := table{header: []string{"FRAME", "TUNNEL", "CLASS", "DSCP", "QUEUE", "RULE"}, state: -1}
	for i, c := range all {
		rule := "none matches"
		switch {
		case c.Error != "":
			t.rows = append(t.rows, []string{strconv.Itoa(i + 1), "-", "-", "-", "-", c.Error})
			continue
		case c.Dropped != "":
			rule = "dropped: " + c.Dropped
		case c.Rule > 0:
			rule = fmt.Sprintf("%d: %s", c.Rule, c.RuleWords)
		}
		t.rows = append(t.rows, []string{strconv.Itoa(i + 1), c.Tunnel, orNone(c.Class), strconv.Itoa(int(c.DSCP)), orNone(c.Queue), rule})
	}
	return t.write(a.Stdout, a.colour())
}
