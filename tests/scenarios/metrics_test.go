package scenarios

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// metricsAddress is where the gateway is scraped, in its own namespace.
const metricsAddress = "127.0.0.1:9464"

// scrapeTimeout is Prometheus's own default.
const scrapeTimeout = 10 * time.Second

// scrape is "scrape".
func (s *stage) scrape(ts *testscript.TestScript, args []string) error {
	if len(args) != 0 {
		return errUsage
	}
	text, err := s.metrics(s.t.Context())
	if err == nil {
		_, err = io.WriteString(ts.Stdout(), text)
	}
	return err
}

// metric is "metric NAME [LABEL=VALUE]... N".
func (s *stage) metric(_ *testscript.TestScript, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	want, err := strconv.ParseFloat(args[len(args)-1], 64)
	if err != nil {
		return err
	}
	name, labels := "tandem_"+args[0], args[1:len(args)-1]
	return s.until(fmt.Sprintf("%s of %v to be %v", name, labels, want), func(ctx context.Context) (string, error) {
		text, err := s.metrics(ctx)
		if err != nil {
			return "", err
		}
		switch have, samples, err := addUp(text, name, labels); {
		case err != nil:
			return "", err
		case samples == 0:
			return "there is no such sample", nil
		case have != want:
			return fmt.Sprintf("it is %v", have), nil
		}
		return "", nil
	})
}

// sample is a line of the text format: name, labels and value.
var sample = regexp.MustCompile(`(?m)^(\w+)(?:\{(.*)\})? (\S+)$`)

// addUp is the sum of the samples of a name that have all the labels, and how many they are.
func addUp(text, name string, labels []string) (sum float64, samples int, err error) {
	for _, found := range sample.FindAllStringSubmatch(text, -1) {
		if found[1] != name || !hasLabels(found[2], labels) {
			continue
		}
		value, err := strconv.ParseFloat(found[3], 64)
		if err != nil {
			return 0, 0, err
		}
		sum += value
		samples++
	}
	return sum, samples, nil
}

func hasLabels(text string, labels []string) bool {
	for _, l := range labels {
		label, value, _ := strings.Cut(l, "=")
		if !strings.Contains(","+text+",", fmt.Sprintf(",%s=%q,", label, value)) {
			return false
		}
	}
	return true
}

// metrics is one scrape.
func (s *stage) metrics(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = s.Do(netlab.Gateway, func() (err error) {
				conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddress+"/metrics", nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("a scrape says %s: %.200s", response.Status, body)
	}
	return string(body), err
}
