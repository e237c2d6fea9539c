// What a Go program does with a cluster, with client-go as it comes: typed clients (protobuf on the
// wire), watches, an informer, a custom resource through the dynamic client. It ends with the first
// thing that is not as it should be.
//
// Run it against any cluster, with client-go (0.26 or newer) and what that needs on the GOPATH:
//
//	KUBECONFIG=... GO111MODULE=off go run .
//
// or, in a copy of this folder, after `go mod init scenario && go mod tidy`:
//
//	KUBECONFIG=... go run .
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func check(what string, holds bool) {
	if !holds {
		fmt.Fprintln(os.Stderr, what)
		os.Exit(1)
	}
}

func next(events watch.Interface, wanted watch.EventType) watch.Event {
	select {
	case event := <-events.ResultChan():
		check(fmt.Sprintf("a watch told %s %v, not %s", event.Type, event.Object, wanted), event.Type == wanted)
		return event
	case <-time.After(10 * time.Second):
		check("a watch told nothing", false)
		panic("not reached")
	}
}

func configMaps(ctx context.Context, client kubernetes.Interface) {
	maps := client.CoreV1().ConfigMaps("default")
	draft := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "go", Labels: map[string]string{"by": "go"}}, Data: map[string]string{"k": "1"}}
	made, err := maps.Create(ctx, draft, metav1.CreateOptions{})
	must("create", err)
	check("no uid", made.UID != "" && made.ResourceVersion != "")
	_, err = maps.Create(ctx, draft, metav1.CreateOptions{})
	check("a second create", apierrors.IsAlreadyExists(err))
	events, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: made.ResourceVersion, LabelSelector: "by=go"})
	must("watch", err)
	stale := made.DeepCopy()
	made.Data["k"] = "2"
	made, err = maps.Update(ctx, made, metav1.UpdateOptions{})
	must("update", err)
	check("modified", next(events, watch.Modified).Object.(*corev1.ConfigMap).Data["k"] == "2")
	stale.Data["k"] = "3"
	_, err = maps.Update(ctx, stale, metav1.UpdateOptions{})
	check("a stale update", apierrors.IsConflict(err))
	_, err = maps.Patch(ctx, "go", types.StrategicMergePatchType, []byte(`{"data":{"l":"4"}}`), metav1.PatchOptions{})
	must("patch", err)
	got := next(events, watch.Modified).Object.(*corev1.ConfigMap)
	check("patched", got.Data["l"] == "4" && got.Data["k"] == "2")
	list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "by=go"})
	must("list", err)
	check("one item", len(list.Items) == 1 && list.ResourceVersion != "")
	must("delete", maps.Delete(ctx, "go", metav1.DeleteOptions{}))
	next(events, watch.Deleted)
	_, err = maps.Get(ctx, "go", metav1.GetOptions{})
	check("gone", apierrors.IsNotFound(err))
	events.Stop()
}

func informer(ctx context.Context, client kubernetes.Interface) {
	factory := informers.NewSharedInformerFactory(client, 0)
	namespaces := factory.Core().V1().Namespaces()
	namespaces.Informer()
	factory.Start(ctx.Done())
	for _, synced := range factory.WaitForCacheSync(ctx.Done()) {
		check("an informer does not sync", synced)
	}
	_, err := namespaces.Lister().Get("kube-system")
	must("an informer's lister", err)
}

func custom(ctx context.Context, client dynamic.Interface) {
	definitions := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	definition := &unstructured.Unstructured{Object: map[string]interface{}{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]interface{}{"name": "gophers.example.com"},
		"spec": map[string]interface{}{
			"group": "example.com", "scope": "Namespaced",
			"names": map[string]interface{}{"plural": "gophers", "singular": "gopher", "kind": "Gopher", "listKind": "GopherList"},
			"versions": []interface{}{map[string]interface{}{
				"name": "v1", "served": true, "storage": true,
				"schema": map[string]interface{}{"openAPIV3Schema": map[string]interface{}{
					"type": "object", "properties": map[string]interface{}{"spec": map[string]interface{}{
						"type": "object", "properties": map[string]interface{}{"size": map[string]interface{}{
							"type": "integer", "x-kubernetes-validations": []interface{}{map[string]interface{}{"rule": "self < 10"}},
						}},
					}},
				}},
			}},
		},
	}}
	_, err := definitions.Create(ctx, definition, metav1.CreateOptions{})
	must("define", err)
	gophers := client.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "gophers"}).Namespace("default")
	events, err := gophers.Watch(ctx, metav1.ListOptions{})
	must("watch custom objects", err)
	gopher := func(size int64) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]interface{}{
			"apiVersion": "example.com/v1", "kind": "Gopher", "metadata": map[string]interface{}{"name": "g"},
			"spec": map[string]interface{}{"size": size},
		}}
	}
	_, err = gophers.Create(ctx, gopher(11), metav1.CreateOptions{})
	check(fmt.Sprintf("a rule is not held to: %v", err), apierrors.IsInvalid(err))
	_, err = gophers.Create(ctx, gopher(1), metav1.CreateOptions{})
	must("create a custom object", err)
	next(events, watch.Added)
	_, err = gophers.Patch(ctx, "g", types.ApplyPatchType, []byte(`{"apiVersion":"example.com/v1","kind":"Gopher","metadata":{"name":"g"},"spec":{"size":2}}`), metav1.PatchOptions{FieldManager: "go", Force: func() *bool { yes := true; return &yes }()})
	must("apply", err)
	next(events, watch.Modified)
	must("delete", gophers.Delete(ctx, "g", metav1.DeleteOptions{}))
	next(events, watch.Deleted)
	must("forget the definition", definitions.Delete(ctx, "gophers.example.com", metav1.DeleteOptions{}))
}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must("kubeconfig", err)
	typed := *config
	typed.ContentType = "application/vnd.kubernetes.protobuf"
	typed.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := kubernetes.NewForConfig(&typed)
	must("client", err)
	version, err := client.Discovery().ServerVersion()
	must("version", err)
	configMaps(ctx, client)
	informer(ctx, client)
	dynamic, err := dynamic.NewForConfig(config)
	must("dynamic client", err)
	custom(ctx, dynamic)
	fmt.Println("client-go works unmodified against", version.GitVersion)
}
