# syntax=docker/dockerfile:1

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# Without VERSION the binary names the module's version.
ARG VERSION=
# No cgo: the store is SQLite in pure Go, so that the binary needs no library of the system.
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w -X main.version=${VERSION}" -o /out/signalbox ./cmd/signalbox \
    && mkdir /out/data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/signalbox /usr/local/bin/signalbox
# The embedded store's file lies in the working directory: mount a disk here, or name a Redis in SIGNALBOX_STORE.
COPY --from=build --chown=nonroot:nonroot /out/data /data
WORKDIR /data
# The address is :8080, or the port in PORT.
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/signalbox"]
CMD ["serve"]
