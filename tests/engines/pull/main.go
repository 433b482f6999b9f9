// Command pull has containerd pull an image as its clients do that unpack while they download, and
// says which blobs it asked for.
//
//	pull ADDRESS SNAPSHOTTER LAYOUT NAME
//
// The registry is an OCI layout directory with one image. Each blob that is fetched is a line: its
// media type. Such clients are nerdctl and Kubernetes; ctr unpacks only what it has downloaded.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/remotes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layout is a registry in a directory.
type layout string

func (dir layout) Resolve(_ context.Context, ref string) (string, ocispec.Descriptor, error) {
	text, err := os.ReadFile(filepath.Join(string(dir), "index.json"))
	if err != nil {
		return "", ocispec.Descriptor{}, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return "", ocispec.Descriptor{}, err
	}
	if len(index.Manifests) != 1 {
		return "", ocispec.Descriptor{}, errors.New("not one image")
	}
	return ref, index.Manifests[0], nil
}

func (dir layout) Fetcher(context.Context, string) (remotes.Fetcher, error) {
	return dir, nil
}

func (dir layout) Pusher(context.Context, string) (remotes.Pusher, error) {
	return nil, errors.New("nothing is pushed here")
}

func (dir layout) Fetch(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	fmt.Println(desc.MediaType)
	return os.Open(filepath.Join(string(dir), "blobs", desc.Digest.Algorithm().String(), desc.Digest.Encoded()))
}

func pull(address, snapshotter, dir, name string) error {
	client, err := containerd.New(address)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx := namespaces.WithNamespace(context.Background(), "default")
	_, err = client.Pull(ctx, name, containerd.WithPullUnpack,
		containerd.WithPullSnapshotter(snapshotter), containerd.WithResolver(layout(dir)))
	return err
}

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: pull ADDRESS SNAPSHOTTER LAYOUT NAME")
		os.Exit(2)
	}
	if err := pull(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, "pull:", err)
		os.Exit(1)
	}
}
