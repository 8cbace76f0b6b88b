// Says hello over TLS to ADDRESS many times, each time in another way. It expects no answer.
package main

import (
	"crypto/tls"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	address := os.Args[1]
	versions := []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13}
	for _, name := range []string{"go.example.com", ""} {
		for _, protocols := range []string{"", "h2", "h2,http/1.1", "http/1.1"} {
			for i, least := range versions {
				for _, most := range versions[i:] {
					config := &tls.Config{ServerName: name, MinVersion: least, MaxVersion: most, InsecureSkipVerify: true}
					if protocols != "" {
						config.NextProtos = strings.Split(protocols, ",")
					}
					connection, err := net.Dial("tcp", address)
					if err != nil {
						panic(err)
					}
					connection.SetDeadline(time.Now().Add(5 * time.Second))
					_ = tls.Client(connection, config).Handshake()
					connection.Close()
				}
			}
		}
	}
}
