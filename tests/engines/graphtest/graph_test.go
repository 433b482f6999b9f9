// Package graphtest runs Docker's own graph-driver suite against layerd's plugin protocol, through
// the very client that dockerd uses. LAYERD_SOCKET names the socket of a running layerd.
package graphtest

import (
	"errors"
	"os"
	"testing"

	"github.com/docker/docker/daemon/graphdriver"
	"github.com/docker/docker/daemon/graphdriver/graphtest"
	"github.com/docker/docker/pkg/idtools"
	"github.com/docker/docker/pkg/plugingetter"
	"github.com/docker/docker/pkg/plugins"
	"github.com/docker/docker/pkg/reexec"
)

const name = "layerd-suite"

// getter is dockerd's plugin store with one plugin in it.
type getter struct{ client *plugins.Client }

func (g *getter) Name() string                  { return "layerd" }
func (g *getter) ScopedPath(path string) string { return path }
func (g *getter) IsV1() bool                    { return true }
func (g *getter) Client() *plugins.Client       { return g.client }
func (g *getter) Get(string, string, int) (plugingetter.CompatPlugin, error) {
	return g, nil
}
func (g *getter) GetAllByCap(string) ([]plugingetter.CompatPlugin, error) {
	return nil, errors.New("not asked for by graph drivers")
}
func (g *getter) GetAllManagedPluginsByCap(string) []plugingetter.CompatPlugin { return nil }
func (g *getter) Handle(string, func(string, *plugins.Client))                 {}

func init() {
	reexec.Init()
	register := func(home string, options []string, uids, gids []idtools.IDMap) (graphdriver.Driver, error) {
		client, err := plugins.NewClient("unix://"+os.Getenv("LAYERD_SOCKET"), nil)
		if err != nil {
			return nil, err
		}
		var activated struct{ Implements []string }
		if err := client.Call("Plugin.Activate", nil, &activated); err != nil {
			return nil, err
		}
		config := graphdriver.Options{
			Root: home, DriverOptions: options, UIDMaps: uids, GIDMaps: gids, ExperimentalEnabled: true,
		}
		return graphdriver.GetDriver("layerd", &getter{client}, config)
	}
	if err := graphdriver.Register(name, register); err != nil {
		panic(err)
	}
}

// One driver serves all tests between Setup and Teardown, as in Docker's own tests of overlay2.
func TestSetup(t *testing.T)         { graphtest.GetDriver(t, name) }
func TestCreateEmpty(t *testing.T)   { graphtest.DriverTestCreateEmpty(t, name) }
func TestCreateBase(t *testing.T)    { graphtest.DriverTestCreateBase(t, name) }
func TestCreateSnap(t *testing.T)    { graphtest.DriverTestCreateSnap(t, name) }
func Test120LayerRead(t *testing.T)  { graphtest.DriverTestDeepLayerRead(t, 120, name) }
func Test128LayerRead(t *testing.T)  { graphtest.DriverTestDeepLayerRead(t, 128, name) }
func TestDiffApply10(t *testing.T)   { graphtest.DriverTestDiffApply(t, 10, name) }
func TestDiffApply1000(t *testing.T) { graphtest.DriverTestDiffApply(t, 1000, name) }
func TestChanges(t *testing.T)       { graphtest.DriverTestChanges(t, name) }
func TestTeardown(t *testing.T)      { graphtest.PutDriver(t) }
