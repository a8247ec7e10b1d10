package awssm

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/tokenkeep/tokenkeep/tokenstore/driver"
)

// sightings remembers which versions were read or written lately, by a hash. It
// forgets them early if there are very many: then a base is read again that would
// not have to be.
type sightings struct {
	mu          sync.Mutex
	seed        maphash.Seed
	began       time.Time // of the young
	young, aged map[uint64]sighting
}

// A sighting is when a version was seen, and which of its labels its secret had no
// room for.
type sighting struct {
	at    time.Time
	lacks []driver.Label
}

// maxSightings is how many versions one generation has.
const maxSightings = 1 << 16

func (s *sightings) note(v driver.Version, now sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil {
		s.seed, s.began, s.young = maphash.MakeSeed(), now.at, map[uint64]sighting{}
	}
	if now.at.Sub(s.began) > baseLife || len(s.young) >= maxSightings {
		s.began, s.aged, s.young = now.at, s.young, map[uint64]sighting{}
	}
	s.young[maphash.String(s.seed, string(v))] = now
}

// since reports whether v was noted at the given time or later, and the labels that
// its secret had no room for.
func (s *sightings) since(v driver.Version, at time.Time) (lacks []driver.Label, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil {
		return nil, false
	}
	key := maphash.String(s.seed, string(v))
	seen, ok := s.young[key]
	if !ok {
		seen, ok = s.aged[key]
	}
	return seen.lacks, ok && !seen.at.Before(at)
}
