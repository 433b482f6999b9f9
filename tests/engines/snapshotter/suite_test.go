// Package snapshotter runs containerd's own snapshotter suite against layerd over its socket.
//
// Every case of the suite wants a root of its own, so each starts a layerd of its own.
// LAYERD names the program, LAYERD_DRIVER the storage driver, LAYERD_OPTIONS more words for its command line.
package snapshotter

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
)

// start runs a layerd below root until stop is called; stop checks that it ends cleanly.
func start(root string) (socket string, stop func() error, err error) {
	socket = filepath.Join(root, "layerd.sock")
	log, err := os.Create(filepath.Join(root, "layerd.log"))
	if err != nil {
		return "", nil, err
	}
	words := []string{"serve", "--root", filepath.Join(root, "store"),
		"--driver", os.Getenv("LAYERD_DRIVER"), "--socket", socket}
	daemon := exec.Command(os.Getenv("LAYERD"), append(words, strings.Fields(os.Getenv("LAYERD_OPTIONS"))...)...)
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := daemon.Start(); err != nil {
		return "", nil, err
	}
	stop = func() error {
		defer log.Close()
		if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		if err := daemon.Wait(); err != nil {
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("layerd: %w\n%s", err, said)
		}
		return nil
	}
	for patience := 0; patience < 6000; patience++ {
		if connection, err := net.Dial("unix", socket); err == nil {
			connection.Close()
			return socket, stop, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	said, _ := os.ReadFile(log.Name())
	_ = stop()
	return "", nil, fmt.Errorf("layerd opened no socket\n%s", said)
}

func newSnapshotter(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	socket, stop, err := start(root)
	if err != nil {
		return nil, nil, err
	}
	connection, err := grpc.Dial("unix://"+socket, grpc.WithInsecure())
	if err != nil {
		_ = stop()
		return nil, nil, err
	}
	client := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(connection), "layerd")
	return client, func() error {
		connection.Close()
		return stop()
	}, nil
}

func TestSnapshotter(t *testing.T) {
	if os.Getenv("LAYERD") == "" || os.Getenv("LAYERD_DRIVER") == "" {
		t.Fatal("LAYERD and LAYERD_DRIVER are not set")
	}
	// The suite skips renames of lower directories for snapshotters of this name alone; overlayfs
	// without redirect_dir cannot rename them whoever drives it.
	name := os.Getenv("LAYERD_DRIVER")
	if name == "overlay2" {
		name = "overlayfs"
	}
	testsuite.SnapshotterSuite(t, name, newSnapshotter)
}
