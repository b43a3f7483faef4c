# The predictor with CRIU: `scripts/build-images --checkpoint` dumps a loaded model in it, and commits the snapshot.
#
# CRIU 4.2 or later, which Debian has in sid: it is copied with its libraries and its loader, so that the predictor's
# base may be older.
ARG PREDICTOR
ARG CRIU_BASE=debian:sid-slim

FROM ${CRIU_BASE} AS criu
RUN command -v criu patchelf >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends criu patchelf; }
RUN mkdir -p /opt/criu/lib && cp "$(command -v criu)" /opt/criu/criu \
    && cp --dereference $(ldd /opt/criu/criu | grep -o '/[^ ]*') /opt/criu/lib/ \
    && patchelf --set-interpreter "/opt/criu/lib/$(basename "$(patchelf --print-interpreter /opt/criu/criu)")" \
        --force-rpath --set-rpath /opt/criu/lib /opt/criu/criu

FROM ${PREDICTOR}
COPY --from=criu /opt/criu /opt/criu
USER 0:0
# CAP_CHECKPOINT_RESTORE of the file, permitted and effective (version 2 of vfs_cap_data): the user of the image has it
# while criu runs, where the container may have it.
RUN python3 -c "import os; os.setxattr('/opt/criu/criu', 'security.capability', bytes.fromhex('0100000200000000000000000001000000000000'))"
USER 65532:65532
ENTRYPOINT ["/opt/venv/bin/python", "-S", "-m", "predictor.snapshot"]
