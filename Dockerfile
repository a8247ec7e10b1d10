# The image of the agent, from programs that are built already: <os>/<arch>/tokenkeep in
# the context, which is how GoReleaser lays them out.
#
# The base has the certificates of public authorities, time zones and a user that is not
# root. It is pinned to the index of its platforms.
ARG BASE=gcr.io/distroless/static-debian12:nonroot@sha256:afa5c872c891853ca7fcf1f12c3edb23f7eeef36189728842dd51042ff57f7ab
FROM ${BASE}
ARG TARGETPLATFORM
COPY ${TARGETPLATFORM}/tokenkeep /tokenkeep
USER 65532:65532
ENTRYPOINT ["/tokenkeep"]
CMD ["serve"]
