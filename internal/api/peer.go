package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of a connection, as the kernel saw it
// when it connected (SO_PEERCRED, unix(7)).
type Peer struct {
	PID int32
	UID uint32
	GID uint32
	// Groups are the others that it was in (SO_PEERGROUPS).
	Groups []uint32
}

type peerKey struct{}

// WithPeer returns a context that carries p.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFrom returns who sent the request that ctx belongs to; false if unknown.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// ConnContext is the http.Server.ConnContext that puts the Peer of a unix
// connection into the context of its requests.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var groups []uint32
	var credErr error
	err = raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			groups = peerGroups(int(fd))
		}
	})
	if err != nil || credErr != nil {
		return ctx
	}
	return WithPeer(ctx, Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid, Groups: groups})
}

// maxPeerGroups is the kernel's NGROUPS_MAX.
const maxPeerGroups = 65536

// peerGroups are the supplementary groups of who is at the other end, none where the kernel
// does not tell (before 4.13).
func peerGroups(fd int) []uint32 {
	for n := 64; n <= maxPeerGroups; {
		groups := make([]uint32, n)
		size := uint32(n * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4]
		case errno == unix.ERANGE && int(size/4) > n:
			n = int(size / 4) // that many there are
		default:
			return nil
		}
	}
	return nil
}

// OwnerMayChange lets root and the daemon's own user change things. Everyone
// else who may open the socket may read.
func OwnerMayChange(p Peer) bool {
	return p.UID == 0 || p.UID == uint32(os.Geteuid())
}

// changer is who asks for a change, for the history and for the log. The error is
// for those who may only look.
func (s *Server) changer(r *http.Request, what string) (by string, who slog.Attr, err error) {
	peer, known := PeerFrom(r.Context())
	who = peer.attr()
	if !known || !s.mayChange(peer) {
		s.log.Warn(what+" refused", who)
		return "", who, s.notPermitted(peer, known)
	}
	return peerName(peer), who, nil
}

// peerName is who a client is in the history.
func peerName(p Peer) string { return fmt.Sprintf("uid %d", p.UID) }

// user is the name of the process's user, "" if it has none.
func (p Peer) user() string {
	u, err := user.LookupId(strconv.FormatUint(uint64(p.UID), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

// attr is who it is, for the log.
func (p Peer) attr() slog.Attr {
	return slog.Group("client", "pid", p.PID, "uid", p.UID, "gid", p.GID, "user", p.user())
}

// notPermitted answers who may only look.
func (s *Server) notPermitted(p Peer, known bool) *Error {
	detail := "only root and the daemon's own user may change this site"
	if s.changers != "" {
		detail = "only root, the daemon's own user and " + s.changers + " may change this site"
	}
	if known {
		detail += "; you are " + p.String()
	}
	return &Error{Code: CodeNotPermitted, Title: "not permitted", Detail: detail}
}

// String is the process's user, as "alice (uid 1001)".
func (p Peer) String() string {
	if name := p.user(); name != "" {
		return fmt.Sprintf("%s (uid %d)", name, p.UID)
	}
	return fmt.Sprintf("uid %d", p.UID)
}
