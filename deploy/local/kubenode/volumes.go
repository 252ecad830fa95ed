package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// provisioner is the name that the StorageClass of deploy/local/manifests.py carries.
const provisioner = "skyoperator.dev/local"

// volumes binds each claim of our StorageClass to a folder on the node. PersistentVolumes of type `local` rather than
// hostPath (which kube-controller-manager could make by itself), because the kubelet applies fsGroup to these only: a
// container that is not root could not write to the others.
type volumes struct {
	client kubernetes.Interface
	folder string
}

func volumesMain(kubeconfig, folder string) int {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubenode volumes:", err)
		return 1
	}
	v := &volumes{client: kubernetes.NewForConfigOrDie(config), folder: folder}
	factory := informers.NewSharedInformerFactory(v.client, 10*time.Second) // the resync is the retry
	watch(factory.Core().V1().PersistentVolumeClaims().Informer(), v.provision)
	watch(factory.Core().V1().PersistentVolumes().Informer(), v.reclaim)
	factory.Start(context.Background().Done())
	select {}
}

func watch[T any](informer cache.SharedIndexInformer, handle func(T) error) {
	seen := func(object any) {
		if err := handle(object.(T)); err != nil {
			klog.Error(err)
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: seen, UpdateFunc: func(_, object any) { seen(object) },
	})
	if err != nil {
		klog.Fatal(err)
	}
}

func (v *volumes) provision(claim *core.PersistentVolumeClaim) error {
	if claim.Annotations["volume.kubernetes.io/storage-provisioner"] != provisioner || claim.Spec.VolumeName != "" {
		return nil
	}
	volume := v.volumeFor(claim)
	path := volume.Spec.Local.Path
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o777); err != nil { // beyond the umask: pods run as any user
		return err
	}
	_, err := v.client.CoreV1().PersistentVolumes().Create(context.Background(), volume, meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (v *volumes) volumeFor(claim *core.PersistentVolumeClaim) *core.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	anyNode := core.NodeSelectorTerm{MatchExpressions: []core.NodeSelectorRequirement{
		{Key: "kubernetes.io/hostname", Operator: core.NodeSelectorOpExists},
	}}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner}},
		Spec: core.PersistentVolumeSpec{
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			ClaimRef:                      &core.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
			PersistentVolumeReclaimPolicy: core.PersistentVolumeReclaimDelete,
			StorageClassName:              *claim.Spec.StorageClassName,
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: filepath.Join(v.folder, name)}},
			NodeAffinity:                  &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{anyNode}}},
		},
	}
}

func (v *volumes) reclaim(volume *core.PersistentVolume) error {
	ours := volume.Annotations["pv.kubernetes.io/provisioned-by"] == provisioner
	if !ours || volume.Status.Phase != core.VolumeReleased || volume.Spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete {
		return nil
	}
	if err := os.RemoveAll(filepath.Join(v.folder, volume.Name)); err != nil {
		return err
	}
	err := v.client.CoreV1().PersistentVolumes().Delete(context.Background(), volume.Name, meta.DeleteOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	return err
}
