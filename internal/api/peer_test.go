package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/pwd-project/pwd/internal/api"
	"github.com/pwd-project/pwd/internal/api/apitest"
	"golang.org/x/sys/unix"
)

// nobody is a user that owns nothing.
const nobody = 65534

// connectAs connects to a socket with the effective user and group id, which
// root may take for one thread. It returns the kernel's error as it is.
func connectAs(id int, socket string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		// Never unlocked: the thread ends with the goroutine, its identity with it.
		runtime.LockOSThread()
		var r result
		defer func() { done <- r }()
		for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			same := ^uintptr(0)
			if _, _, errno := unix.RawSyscall(call, same, uintptr(id), same); errno != 0 {
				r.err = fmt.Errorf("taking the identity of user %d: %w", id, errno)
				return
			}
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			r.err = err
			return
		}
		if r.err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); r.err != nil {
			unix.Close(fd)
			return
		}
		r.f = os.NewFile(uintptr(fd), socket)
	}()
	r := <-done
	return r.f, r.err
}

// The kernel says who is there: another user cannot open the socket, and if he
// is let in (as a member of its group is) he may look but not touch.
func TestAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root, to become somebody else")
		}
		t.Skip("needs root, to become somebody else")
	}
	a := threeSites()
	a.Apply = func(context.Context, api.ApplyRequest) (*api.ApplyResult, error) {
		t.Error("the apply went through")
		return &api.ApplyResult{}, nil
	}
	socket, _ := apitest.Serve(t, apitest.New(a), api.Options{})
	dir := strings.TrimSuffix(socket, "/"+api.SocketName)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := connectAs(nobody, socket); !errors.Is(err, unix.EACCES) {
		t.Fatalf("connecting to a socket of mode 0660: %v, want %v", err, unix.EACCES)
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	conn, err := connectAs(nobody, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, tt := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/tunnels", "", 200},
		{"POST", "/v1/apply", `{"name":"f","document":"x"}`, 403},
	} {
		req, _ := http.NewRequest(tt.method, "http://pwd"+tt.path, strings.NewReader(tt.body))
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(in, req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != tt.status {
			t.Errorf("%s %s: %s, want %d", tt.method, tt.path, res.Status, tt.status)
		}
	}
}
