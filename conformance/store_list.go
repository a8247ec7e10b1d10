package conformance

import (
	"fmt"
)

var listCasesOfStore = []testCase[*storeEnv]{
	{"TS-26", "GetTokens of no records is empty", func(e *storeEnv) {
		s := e.open()
		e.keeps(s)
		record := e.save(s, e.of("ann", "c1"))
		e.remove(s, record.ID)
		e.keeps(s)
	}},
	{"TS-26", "GetTokens returns every record once, ordered by ID", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for i := range 45 {
			t := e.of(fmt.Sprintf("user %d", i), "c1")
			switch i % 4 {
			case 1:
				t.UserName, t.RefreshToken = "", e.secret()
			case 2:
				t.ID = e.own(45 - i)
			}
			saved = append(saved, e.save(s, t))
		}
		e.keeps(s, saved...)
		e.keeps(e.reopen(s), saved...)
	}},
	{"TS-26", "a merged record is returned once", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for _, user := range []string{"ann", "bob"} {
			e.save(s, e.of(user, "c1"))
			code := e.consent(s)
			e.answer(s, code, hour(9))
			saved = append(saved, e.save(s, token{ID: code.ID, UserName: user}))
		}
		e.keeps(s, saved...)
		e.keeps(e.reopen(s), saved...)
	}},
	{"TS-27", "DeleteTokens removes every record", func(e *storeEnv) {
		s := e.open()
		var saved []token
		for i := range 30 {
			t := e.of(fmt.Sprintf("user %d", i), "c1")
			if i%3 == 0 {
				t.UserName = ""
			}
			saved = append(saved, e.save(s, t))
		}
		code := e.consent(s)
		e.answer(s, code, hour(9))
		saved = append(saved, code, e.save(s, token{ID: code.ID, UserName: "user 1"}))
		e.search()
		if err := e.reopen(s).DeleteTokens(e.ctx); err != nil {
			e.Fatalf("DeleteTokens: %v", err)
		}
		for _, t := range saved {
			e.lacks(s, t.ID)
		}
		e.keeps(s)
		if err := s.DeleteTokens(e.ctx); err != nil {
			e.Errorf("DeleteTokens of no records: %v", err)
		}
		e.keeps(s, e.save(s, e.of("ann", "c1")))
	}},
}
