package tcbpf

import (
	"fmt"
	"os"
	"path/filepath"
)

// removePins removes all pins, and the directory of the options if that leaves
// it empty.
func (d *Datapath) removePins() error {
	if d.pins == "" {
		return nil
	}
	if err := os.RemoveAll(d.pins); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	if err := os.Remove(filepath.Dir(d.pins)); err != nil {
		d.log.Debug("directory for pins stays", "err", err) // a mount, or not empty
	}
	return nil
}
