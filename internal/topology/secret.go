package topology

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// MaxSecret bounds a secret, in octets.
const MaxSecret = 1024

// Secret is a shared secret. Whatever prints it prints that it is one, and no more.
type Secret []byte

// Format implements fmt.Formatter.
func (Secret) Format(s fmt.State, _ rune) { io.WriteString(s, "(secret)") }

// MarshalText implements encoding.TextMarshaler.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// SecretFile is a file that a tunnel's secret is in.
type SecretFile struct {
	// Tunnel is the tunnel's name; Name the file's, as the topology has it.
	Tunnel, Name string
	// At is where the topology names it, Path the way to that.
	At   Place
	Path string
}

// ReadSecret reads the file that the topology gives that name. What it returns has the
// path even if it fails. Of a file longer than MaxSecret and a newline some octets
// more are enough. The error is fs.ErrNotExist if there is no such file.
type ReadSecret func(name string) (SecretText, error)

// SecretText is what is in a secret's file.
type SecretText struct {
	Path string
	Text []byte
	Mode fs.FileMode
}

// WithSecrets is a copy with the secrets of all tunnels, read from their files. A
// tunnel with a faulty file has none, and the diagnostics tell of that file. Warnings
// leave the secret where it is.
func (l *Local) WithSecrets(read ReadSecret) (*Local, Diagnostics) {
	next := *l
	next.Tunnels = slices.Clone(l.Tunnels)
	secrets, faulty := map[string][]Secret{}, map[string]bool{}
	var found Diagnostics
	for _, f := range l.SecretFiles {
		secret, faults := f.read(read)
		found = append(found, faults...)
		secrets[f.Tunnel] = append(secrets[f.Tunnel], secret)
		faulty[f.Tunnel] = faulty[f.Tunnel] || faults.HasErrors()
	}
	for i := range next.Tunnels {
		t := &next.Tunnels[i]
		if t.Secrets = nil; !faulty[t.Name] {
			t.Secrets = secrets[t.Name]
		}
	}
	wires, faults := l.withCookies(read)
	next.Pseudowires, found = wires, append(found, faults...)
	found.sort()
	return &next, found
}

// CheckSecrets looks at the files of all tunnels' secrets, for somebody who may be
// elsewhere than the daemons: a file that is not there, or not to be read, is worth a
// warning only.
func (t *Topology) CheckSecrets(read ReadSecret) Diagnostics {
	var found Diagnostics
	for _, tn := range t.tunnels {
		for _, f := range tn.secrets {
			_, faults := f.read(read)
			for i := range faults {
				if faults[i].Code == CodeSecretFile {
					faults[i].Severity = SeverityWarning
					faults[i].Help = "each site of the tunnel needs it; here it was not checked"
				}
			}
			found = append(found, faults...)
		}
	}
	for _, p := range t.pseudowires {
		for _, f := range p.cookieFiles() {
			_, faults := f.readCookie(read)
			for i := range faults {
				if faults[i].Code == CodeSecretFile {
					faults[i].Severity = SeverityWarning
					faults[i].Help = "the site with the daemon needs it; here it was not checked"
				}
			}
			found = append(found, faults...)
		}
	}
	found.sort()
	return found
}

// read takes the secret from its file. One newline at the end is not part of it.
func (f SecretFile) read(read ReadSecret) (Secret, Diagnostics) {
	fault := func(severity Severity, code Code, message, help string) Diagnostics {
		return Diagnostics{{Place: f.At, Severity: severity, Code: code, Path: f.Path, Message: message, Help: help}}
	}
	file, err := read(f.Name)
	path, shown := file.Path, printable(file.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault(SeverityError, CodeSecretFile, "there is no file "+shown, "make it, with one secret for all sites of the tunnel: `(umask 077; openssl rand -base64 32 > "+path+")`")
	case err != nil:
		return nil, fault(SeverityError, CodeSecretFile, fmt.Sprintf("%s cannot be read: %v", shown, err), "let the daemon's user read it, and nobody else")
	}
	secret := Secret(strings.TrimSuffix(string(file.Text), "\n"))
	switch {
	case len(secret) == 0:
		return nil, fault(SeverityError, CodeSecret, "there is nothing in "+shown, "write the secret into it")
	case len(secret) > MaxSecret:
		return nil, fault(SeverityError, CodeSecret, fmt.Sprintf("%s has more than %d octets", shown, MaxSecret), "use a shorter secret")
	case file.Mode&0o006 != 0:
		return secret, fault(SeverityWarning, CodeOpenSecret, fmt.Sprintf("everybody on this host can get at %s (mode %04o)", shown, file.Mode.Perm()), "chmod 600 "+path)
	}
	return secret, nil
}
