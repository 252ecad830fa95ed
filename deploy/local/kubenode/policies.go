package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/cloudnativelabs/kube-router/v2/pkg/utils"
	"github.com/coreos/go-iptables/iptables"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// policiesMain enforces NetworkPolicies, which the bridge between the pods does not: kube-router's controller for them,
// with nothing else of kube-router. k3s does the same.
func policiesMain(kubeconfig, node, services string) int {
	if err := enforce(kubeconfig, node, services); err != nil {
		fmt.Fprintln(os.Stderr, "kubenode policies:", err)
		return 1
	}
	select {}
}

func enforce(kubeconfig, node, services string) error {
	rest, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client := kubernetes.NewForConfigOrDie(rest)
	if err := waitForNode(client, node); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	controller, err := newController(client, node, services, pods, policies, namespaces)
	if err != nil {
		return err
	}
	handlers := map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods: controller.PodEventHandler, policies: controller.NetworkPolicyEventHandler, namespaces: controller.NamespaceEventHandler,
	}
	for informer, handler := range handlers {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	never := make(chan struct{})
	factory.Start(never)
	factory.WaitForCacheSync(never)
	beats := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for range beats { // nobody asks, but the controller waits for a reader
		}
	}()
	group := &sync.WaitGroup{}
	group.Add(1)
	go controller.Run(beats, never, group)
	return nil
}

func newController(client kubernetes.Interface, node, services string, pods, policies, namespaces cache.SharedIndexInformer) (*netpol.NetworkPolicyController, error) {
	config := options.NewKubeRouterConfig()
	config.HostnameOverride = node
	config.ClusterIPCIDRs = []string{services}
	config.EnableIPv4 = true
	tables, err := iptables.NewWithProtocol(iptables.ProtocolIPv4)
	if err != nil {
		return nil, err
	}
	sets, err := utils.NewIPSet(false)
	if err != nil {
		return nil, err
	}
	return netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces, &sync.Mutex{},
		map[core.IPFamily]utils.IPTablesHandler{core.IPv4Protocol: tables},
		map[core.IPFamily]utils.IPSetHandler{core.IPv4Protocol: sets})
}

func waitForNode(client kubernetes.Interface, name string) error {
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var node *core.Node
		node, err = client.CoreV1().Nodes().Get(context.Background(), name, meta.GetOptions{})
		if err == nil && len(node.Status.Addresses) > 0 {
			return nil
		}
	}
	return fmt.Errorf("node %s did not register within a minute: %v", name, err)
}
