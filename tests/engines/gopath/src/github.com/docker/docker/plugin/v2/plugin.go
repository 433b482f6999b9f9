// Package v2 stands in for the package of managed plugins, which Debian does not ship but which
// graphdriver names in one type assertion. layerd is a V1 plugin, so no value of it is ever made.
package v2

import (
	"github.com/docker/docker/api/types"
	"github.com/docker/docker/pkg/plugins"
)

// Plugin has the one field and the methods that the assertion needs.
type Plugin struct {
	PluginObj types.Plugin
}

func (p *Plugin) Name() string                  { return p.PluginObj.Name }
func (p *Plugin) ScopedPath(path string) string { return path }
func (p *Plugin) IsV1() bool                    { return false }
func (p *Plugin) Client() *plugins.Client       { return nil }
