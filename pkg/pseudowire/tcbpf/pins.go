package tcbpf

import (
	"fmt"
	"os"
	"path/filepath"

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
	if err := bpf.RemoveMaps(d.pins); err != nil {
		return err
	}
	for _, dir := range []string{d.pins, filepath.Dir(d.pins)} {
		if err := os.Remove(dir); err != nil {
			d.log.Debug("a directory for pins stays", "err", err) // a mount, or not empty
			break
		}
	}
	return nil
}
