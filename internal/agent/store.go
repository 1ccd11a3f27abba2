package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pwd-project/pwd/pkg/l2tpv3/control"
	"github.com/pwd-project/pwd/pkg/l2tpv3/transport"
	"github.com/pwd-project/pwd/pkg/pseudowire"
)

// stateVersion is the version of everything below the state directory. State
// of another version is refused, never guessed at.
const stateVersion = 1

// store keeps the daemon's state in files. The generation is synced to the disk:
// it has to survive a loss of power. The tunnels are not: across a reboot they are
// void anyway.
//
// Files are replaced as a whole, but for those of tunnels: what changes in one is
// appended, a line each, until that makes up most of the file.
type store struct {
	dir  string
	lock *os.File
	// logs are the tunnels' files that this process has written, open for more.
	logs map[string]*tunnelLog
	// disk, if set, does what is done to files, or has it fail.
	disk func(what string, do func() error) error
}

// step does one thing to a file.
func (s *store) step(what string, do func() error) error {
	if s.disk != nil {
		return s.disk(what, do)
	}
	return do()
}

// tunnelLog is a tunnel's file: the record in the first line, changes of it in
// those that follow.
type tunnelLog struct {
	file           *os.File
	record, behind int // octets of the first line, and of the others
}

// slack is how much is appended to a small record before it is written anew.
const slack = 64 << 10

// full says that it is time to write the record anew.
func (l *tunnelLog) full() bool { return l.behind > max(slack, 2*l.record) }

// generation is the topology in force.
type generation struct {
	Version int       `json:"version"`
	Site    string    `json:"site"`
	Number  int       `json:"number"`
	Applied time.Time `json:"applied"`
	// Hash is of Document; FileHash is of the topology file when it was last read,
	// applied or not.
	Hash     string `json:"hash"`
	FileHash string `json:"fileHash,omitempty"`
	// Name is what diagnostics call the document, Dir the folder that the names of
	// files in it are relative to. Secrets stay in their files.
	Name     string `json:"name"`
	Document string `json:"document"`
	Dir      string `json:"dir,omitempty"`
	// By is who had it applied, Cause what made it so.
	By    string `json:"by,omitempty"`
	Cause string `json:"cause,omitempty"`
	// Confirm is when generation Before is put back into force, nil if it is not.
	Confirm *time.Time `json:"confirm,omitempty"`
	Before  int        `json:"before,omitempty"`
}

// tunnelRecord is one tunnel's control connection, and the boot that it was
// made in: the other side's view of a connection from before a reboot is void.
type tunnelRecord struct {
	Version int                         `json:"version"`
	Boot    string                      `json:"boot"`
	Control control.TunnelState         `json:"control"`
	Sockets []transport.ConnectionState `json:"sockets,omitempty"`
	// PathMTU is pathProbe's cap.
	PathMTU int `json:"pathMTU,omitempty"`
}

// tunnelChange is what is appended: a later state of a tunnelRecord.
type tunnelChange struct {
	Control control.TunnelChange        `json:"control"`
	Sockets []transport.ConnectionState `json:"sockets,omitempty"`
	PathMTU int                         `json:"pathMTU,omitempty"`
}

// BusyError says that another daemon holds the state directory.
type BusyError struct{ Dir string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("state directory %s is in use by another pwd: stop that first; one in another network namespace needs its own --state-dir", e.Dir)
}

// DamagedError says that a state file cannot be understood.
type DamagedError struct {
	File string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("state file %s is damaged, remove it to go on without: %v", e.File, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// VersionError says that a state file was written by another version.
type VersionError struct {
	File      string
	Got, Want int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("state file %s has version %d, this pwd reads version %d: run the version that wrote it, or remove everything with --cleanup", e.File, e.Got, e.Want)
}

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "tunnels"), 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state directory's lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &BusyError{Dir: dir}
		}
		return nil, fmt.Errorf("lock state directory %s: %w", dir, err)
	}
	removeHalfWritten(dir)
	return &store{dir: dir, lock: lock, logs: make(map[string]*tunnelLog)}, nil
}

// removeHalfWritten removes files that a process died over before they took their places.
// What cannot be removed is in nobody's way.
func removeHalfWritten(dir string) {
	for _, in := range []string{dir, filepath.Join(dir, "tunnels"), filepath.Join(dir, historyDir)} {
		entries, _ := os.ReadDir(in)
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".json.new") {
				_ = os.Remove(filepath.Join(in, e.Name()))
			}
		}
	}
}

func (s *store) close() error {
	for name := range s.logs {
		s.endLog(name)
	}
	return s.lock.Close()
}

// write replaces one file as a whole.
func (s *store) write(name string, v any) error { return s.replace(name, v, false) }

// replace is write; with durable it returns when the file is on the disk.
func (s *store) replace(name string, v any, durable bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode state %s: %w", name, err)
	}
	b = append(b, '\n')
	path := filepath.Join(s.dir, name)
	if err := s.step("write "+name, func() error { return os.WriteFile(path+".new", b, 0o600) }); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if durable {
		if err := s.step("sync "+name, func() error { return syncFile(path + ".new") }); err != nil {
			return err
		}
	}
	if err := s.step("rename "+name, func() error { return os.Rename(path+".new", path) }); err != nil {
		return fmt.Errorf("replace state: %w", err)
	}
	if durable {
		return s.step("sync the directory of "+name, func() error { return syncFile(filepath.Dir(path)) })
	}
	return nil
}

// syncFile waits until a file, or the names in a directory, are on the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		return fmt.Errorf("sync state: %w", err)
	}
	return nil
}

// read decodes one file; a file that is not there is fs.ErrNotExist.
func (s *store) read(name string, v any) error {
	path := filepath.Join(s.dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	return decode(path, b, v)
}

// decode reads a file's content. The error is a *DamagedError or a *VersionError.
func decode(path string, b []byte, v any) error {
	var header struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &header); err != nil {
		return &DamagedError{path, err}
	}
	if header.Version != stateVersion {
		return &VersionError{File: path, Got: header.Version, Want: stateVersion}
	}
	return decodeLine(path, b, v)
}

// decodeLine is decode for what has no version of its own.
func decodeLine(path string, b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &DamagedError{path, err}
	}
	return nil
}

func (s *store) remove(name string) error {
	err := s.step("remove "+name, func() error { return os.Remove(filepath.Join(s.dir, name)) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	return nil
}

// generation reads the topology in force; nil if there never was one.
func (s *store) generation() (*generation, error) {
	var g generation
	switch err := s.read("generation.json", &g); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &g, nil
}

func (s *store) setGeneration(g *generation) error {
	g.Version = stateVersion
	return s.replace("generation.json", g, true)
}

// datapathList is the kinds of datapaths that may have objects in the kernel.
type datapathList struct {
	Version int               `json:"version"`
	Kinds   []pseudowire.Kind `json:"kinds"`
}

func (s *store) datapaths() ([]pseudowire.Kind, error) {
	var l datapathList
	if err := s.read("datapaths.json", &l); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return l.Kinds, nil
}

func (s *store) noteDatapath(kind pseudowire.Kind) error {
	kinds, err := s.datapaths()
	if err != nil || slices.Contains(kinds, kind) {
		return err
	}
	return s.setDatapaths(append(kinds, kind))
}

func (s *store) forgetDatapath(kind pseudowire.Kind) error {
	kinds, err := s.datapaths()
	if err != nil || !slices.Contains(kinds, kind) {
		return err
	}
	kinds = slices.DeleteFunc(kinds, func(k pseudowire.Kind) bool { return k == kind })
	return s.setDatapaths(kinds)
}

func (s *store) setDatapaths(kinds []pseudowire.Kind) error {
	return s.replace("datapaths.json", &datapathList{stateVersion, kinds}, true)
}

// A tunnel's name has a slash, which a file's cannot.
func tunnelFile(name string) string {
	return filepath.Join("tunnels", url.PathEscape(name)+".json")
}

// setTunnel writes a tunnel's record, in place of all that was known of it.
func (s *store) setTunnel(name string, r *tunnelRecord) error {
	r.Version = stateVersion
	s.endLog(name)
	file := tunnelFile(name)
	if err := s.write(file, r); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, file), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil // the next time it is written anew
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil
	}
	s.logs[name] = &tunnelLog{file: f, record: int(end)}
	return nil
}

// appendable says that changes of the tunnel can be written by themselves.
func (s *store) appendable(name string) bool {
	l := s.logs[name]
	return l != nil && !l.full()
}

// changeTunnel writes a change after what is known of an appendable tunnel. After
// an error the tunnel has to be written as a whole.
func (s *store) changeTunnel(name string, c *tunnelChange) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode state of tunnel %s: %w", name, err)
	}
	l := s.logs[name]
	err = s.step("append to "+tunnelFile(name), func() error {
		n, err := l.file.Write(append(b, '\n'))
		l.behind += n
		return err
	})
	if err != nil {
		s.endLog(name)
		return fmt.Errorf("append state: %w", err)
	}
	return nil
}

func (s *store) endLog(name string) {
	if l := s.logs[name]; l != nil {
		l.file.Close()
		delete(s.logs, name)
	}
}

func (s *store) removeTunnel(name string) error {
	s.endLog(name)
	return s.remove(tunnelFile(name))
}

// readTunnel reads a tunnel's record, with all changes that were written whole.
// One that a process died over is no loss: what it allowed to be sent was not.
func (s *store) readTunnel(file string) (*tunnelRecord, error) {
	path := filepath.Join(s.dir, file)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	first, rest, _ := bytes.Cut(b, []byte{'\n'})
	var r tunnelRecord
	if err := decode(path, first, &r); err != nil {
		return nil, err
	}
	for {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		if !whole {
			return &r, nil
		}
		var c tunnelChange
		if err := decodeLine(path, line, &c); err != nil {
			return nil, err
		}
		if err := r.Control.Merge(c.Control); err != nil {
			return nil, &DamagedError{path, err}
		}
		r.Sockets, r.PathMTU, rest = c.Sockets, c.PathMTU, after
	}
}

// tunnels reads all records, by tunnel name. A loss of power leaves damaged
// ones: those are given apart.
func (s *store) tunnels() (records map[string]*tunnelRecord, damaged []*DamagedError, err error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "tunnels"))
	if err != nil {
		return nil, nil, fmt.Errorf("list state: %w", err)
	}
	records = make(map[string]*tunnelRecord)
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		name, err := url.PathUnescape(base)
		if err != nil {
			continue
		}
		r, err := s.readTunnel(filepath.Join("tunnels", e.Name()))
		if d, ok := errors.AsType[*DamagedError](err); ok {
			damaged = append(damaged, d)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		records[name] = r
	}
	return records, damaged, nil
}

// clear removes everything but the lock.
func (s *store) clear() error {
	for name := range s.logs {
		s.endLog(name)
	}
	var errs []error
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("list state: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// bootID tells this boot of the machine from all others.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
