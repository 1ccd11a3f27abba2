package tcbpf

import (
	"fmt"
	"os"

	"github.com/pwd-project/pwd/bpf"
)

// removePins removes our pins, and the directories that they leave empty: others' may be
// beside them.
func (d *Datapath) removePins() error {
	if d.pins == "" {
		return nil
	}
	if err := os.RemoveAll(d.pinned()); err != nil {
		return fmt.Errorf("remove pinned attachments: %w", err)
	}
	return bpf.RemovePins(d.pins, bpf.PartDatapath)
}
