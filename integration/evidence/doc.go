// Package evidence proves what the documentation promises, and measures what it
// claims: docs/evidence.md is written from its results by "make evidence".
//
// Everything runs in this process, on the servers that stand for the services in
// the tests of the adapters: they enforce the documented rules and quotas, keep a
// clock of their own, and break on purpose. Nothing here was measured on the
// services themselves; the document says so.
//
//   - Matrix breaks every call of every operation in every way, one at a time and
//     two at a time, and reads the store cold afterwards.
//   - Linearizable checks histories of concurrent clients with porcupine.
//   - Month lets the fakes' clock run through thirty days of hourly refreshes.
//   - Compare runs what a user would write instead beside the store, behind the
//     same delay, and counts.
//   - Scale compares the calls among ten records with those among ten thousand.
//   - Stampedes starts a hundred cold instances with one expired token.
//   - Mistakes has the suite of conformance find what is broken on purpose.
//   - InProcess measures what costs no call at all.
package evidence
