package refreshing

import (
	"time"

	"github.com/tokenkeep/tokenkeep/codec"
	"github.com/tokenkeep/tokenkeep/internal/refusal"
	"github.com/tokenkeep/tokenkeep/internal/stored"
	"github.com/tokenkeep/tokenkeep/tokenstore/doctor"
)

// Status returns a doctor.Status in which only Refusal may be set. The parameter last is the
// failure stored for the record, or nil. The parameter of holds the fields of the record. Refusal
// is nil if no failure is stored, or if the credentials were replaced after the failure.
func (e *Engine) Status(last *stored.Failure, of codec.Fields) (s doctor.Status) {
	if last == nil || last.Of != e.credentials(of) {
		return s
	}
	_, counts := refusal.Counts(last, last.Of, e.Now())
	s.Refusal = &doctor.Refusal{
		Code: last.Code, Permanent: last.Permanent, Count: max(last.Count, 1), At: time.UnixMilli(last.At),
		Counts: counts, Retry: time.UnixMilli(last.Retry),
	}
	return s
}
