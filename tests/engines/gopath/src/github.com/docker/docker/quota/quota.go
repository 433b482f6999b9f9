// Package quota stands in for Docker's package of project quotas, which Debian does not ship but
// which graphtest names for one error value.
package quota

import "errors"

// ErrQuotaNotSupported is compared with, and never returned by a plugin.
var ErrQuotaNotSupported = errors.New("quotas are not supported")
