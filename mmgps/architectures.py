"""Tables of classes from outside torch, by qualified name so that nothing has to be imported for them.

A subclass is recognised by its base. Classes that are not listed are judged by the shapes of their parameters and by
their code (``mmgps/selection/usage.py``); these tables contain what neither shows.
"""

from __future__ import annotations

# Layers whose weight is stored as [out, in / groups, *kernel].
EXTERNAL_LAYERS = {
    'mmcv.ops.deform_conv.DeformConv2d',
    'mmcv.ops.modulated_deform_conv.ModulatedDeformConv2d',
    'torchvision.ops.deform_conv.DeformConv2d',
}
# Linear layers whose weight is stored as [in, out].
TRANSPOSED_LINEAR = {'transformers.pytorch_utils.Conv1D'}

# Attention modules whose tables hold one bias per head and relative position, and whose vectors are biases.
BIASED_ATTENTION = {
    'mmseg.models.backbones.swin.WindowMSA',
    'mmseg.models.backbones.beit.BEiTAttention',
    'mmdet.models.backbones.swin.WindowMSA',
    'mmpretrain.models.utils.attention.WindowMSA',
    'mmpretrain.models.utils.attention.WindowMSAV2',
    'mmpretrain.models.utils.attention.BEiTAttention',
    'mmpretrain.models.utils.attention.CrossMultiheadAttention',
    'mmpretrain.models.utils.attention.LeAttention',
    'mmpretrain.models.backbones.beit.RelativePositionBias',
    'mmpretrain.models.backbones.levit.Attention',
    'mmpretrain.models.backbones.levit.AttentionSubsample',
    'mmpretrain.models.backbones.efficientformer.AttentionWithBias',
    'timm.layers.pos_embed_rel.RelPosBias',
    'timm.layers.pos_embed_rel.RelPosBiasTf',
    'timm.models.beit.Attention',
    'timm.models.beit.RelativePositionBias',
    'timm.models.efficientformer.Attention',
    'timm.models.efficientformer_v2.Attention2d',
    'timm.models.efficientformer_v2.Attention2dDownsample',
    'timm.models.efficientvit_msra.CascadedGroupAttention',
    'timm.models.eva.EvaAttention',
    'timm.models.levit.Attention',
    'timm.models.levit.AttentionDownsample',
    'timm.models.swin_transformer.WindowAttention',
    'timm.models.swin_transformer_v2.WindowAttention',
    'timm.models.tiny_vit.Attention',
    'torchvision.models.maxvit.RelativePositionalMultiHeadAttention',
    'torchvision.models.swin_transformer.ShiftedWindowAttention',
    'torchvision.models.video.swin_transformer.ShiftedWindowAttention3d',
    'transformers.models.beit.modeling_beit.BeitRelativePositionBias',
    'transformers.models.clap.modeling_clap.ClapAudioSelfAttention',
    'transformers.models.cpmant.modeling_cpmant.CpmAntSegmentPositionEmbedding',
    'transformers.models.data2vec.modeling_data2vec_vision.Data2VecVisionRelativePositionBias',
    'transformers.models.deberta.modeling_deberta.DisentangledSelfAttention',
    'transformers.models.donut.modeling_donut_swin.DonutSwinSelfAttention',
    'transformers.models.levit.modeling_levit.LevitAttention',
    'transformers.models.levit.modeling_levit.LevitAttentionSubsample',
    'transformers.models.maskformer.modeling_maskformer_swin.MaskFormerSwinSelfAttention',
    'transformers.models.swin.modeling_swin.SwinRelativePositionBias',
}
# Attention modules whose tables contain one vector per relative position, which is multiplied with the query: position
# embeddings rather than biases of scores. SAM's, and those of models that load its files.
PLACED_ATTENTION = {
    'mmgps.models.sam.attention.RelativeAttention',
    'mmpretrain.models.backbones.vit_sam.Attention',
    'mmpretrain.models.backbones.mvit.MultiScaleAttention',
    'segment_anything.modeling.image_encoder.Attention',
    'timm.layers.bottleneck_attn.PosEmbedRel',
    'timm.layers.halo_attn.PosEmbedRel',
    'timm.layers.lambda_layer.LambdaLayer',
    'timm.layers.pos_embed_sincos.RotaryEmbeddingMixed',
    'timm.models.gemma4_vit.Gemma4PatchEmbed',
    'timm.models.mvitv2.MultiScaleAttention',
    'timm.models.mvitv2.MultiScaleAttentionPoolFirst',
    'timm.models.vision_transformer_sam.Attention',
    'torchvision.models.video.mvit.MultiscaleAttention',
    'torchvision.models.video.mvit.PositionalEncoding',
    'transformers.models.deepseek_ocr2.modeling_deepseek_ocr2.DeepseekOcr2SamVisionAttention',
    'transformers.models.gemma4.modeling_gemma4.Gemma4VisionPatchEmbedder',
    'transformers.models.got_ocr2.modeling_got_ocr2.GotOcr2VisionAttention',
    'transformers.models.sam.modeling_sam.SamPositionalEmbedding',
    'transformers.models.sam.modeling_sam.SamVisionAttention',
    'transformers.models.sam_hq.modeling_sam_hq.SamHQPositionalEmbedding',
    'transformers.models.sam_hq.modeling_sam_hq.SamHQVisionAttention',
    'transformers.models.seggpt.modeling_seggpt.SegGptAttention',
    'transformers.models.unlimited_ocr.modeling_unlimited_ocr.UnlimitedOcrSamVisionAttention',
    'transformers.models.kimi_k25.modeling_kimi_k25.Kimi_K25VisionPositionEmbeddings',
    'transformers.models.pp_formulanet.modeling_pp_formulanet.PPFormulaNetVisionAttention',
    'transformers.models.slanext.modeling_slanext.SLANeXtVisionAttention',
    'transformers.models.vitdet.modeling_vitdet.VitDetAttention',
}
# Modules whose ``nn.Embedding`` of this name contains one bias per relative position and head.
BIAS_EMBEDDINGS = {
    'transformers.models.longt5.modeling_longt5.LongT5Attention': {'relative_attention_bias'},
    'transformers.models.longt5.modeling_longt5.LongT5LocalAttention': {'relative_attention_bias'},
    'transformers.models.longt5.modeling_longt5.LongT5TransientGlobalAttention': {
        'relative_attention_bias',
        'global_relative_attention_bias',
    },
    'transformers.models.mpnet.modeling_mpnet.MPNetEncoder': {'relative_attention_bias'},
    'transformers.models.mt5.modeling_mt5.MT5Attention': {'relative_attention_bias'},
    'transformers.models.pix2struct.modeling_pix2struct.Pix2StructTextAttention': {'relative_attention_bias'},
    'transformers.models.pop2piano.modeling_pop2piano.Pop2PianoAttention': {'relative_attention_bias'},
    'transformers.models.switch_transformers.modeling_switch_transformers.SwitchTransformersAttention': {
        'relative_attention_bias'
    },
    'transformers.models.t5.modeling_t5.T5Attention': {'relative_attention_bias'},
    'transformers.models.udop.modeling_udop.UdopAttention': {'relative_attention_bias'},
    'transformers.models.udop.modeling_udop.RelativePositionBiasBase': {'relative_attention_bias'},
    'transformers.models.umt5.modeling_umt5.UMT5Attention': {'relative_attention_bias'},
    'transformers.models.wavlm.modeling_wavlm.WavLMAttention': {'rel_attn_embed'},
}
# Single parameters of classes, by role.
SINGLE_PARAMETERS = {
    'timm.layers.attention_pool2d.AttentionPool2d': {'pos_embed': 'embedding'},
    'timm.models.efficientvim.EfficientViMBlock': {'alpha': 'scale'},
    **{
        f'transformers.models.{mixer}': {'dt_bias': 'bias'}
        for mixer in (
            'bamba.modeling_bamba.BambaMixer',
            'falcon_h1.modeling_falcon_h1.FalconH1Mixer',
            'granitemoehybrid.modeling_granitemoehybrid.GraniteMoeHybridMambaLayer',
            'mamba2.modeling_mamba2.Mamba2Mixer',
            'nemotron_h.modeling_nemotron_h.NemotronHMamba2Mixer',
            'zamba2.modeling_zamba2.Zamba2MambaMixer',
        )
    },
    'transformers.models.ibert.quant_modules.IntLayerNorm': {'weight': 'norm', 'bias': 'norm'},
    'transformers.models.llava_next.modeling_llava_next.LlavaNextModel': {'image_newline': 'embedding'},
    'transformers.models.llava_next_video.modeling_llava_next_video.LlavaNextVideoModel': {
        'image_newline': 'embedding'
    },
    'transformers.models.llava_onevision.modeling_llava_onevision.LlavaOnevisionModel': {'image_newline': 'embedding'},
    'transformers.models.seamless_m4t.modeling_seamless_m4t.SeamlessM4TConformerSelfAttention': {
        'pos_bias_u': 'bias',
        'pos_bias_v': 'bias',
    },
    'transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer.Wav2Vec2ConformerSelfAttention': {
        'pos_bias_u': 'bias',
        'pos_bias_v': 'bias',
    },
}

# Parametrizations under which each number of the original is still one connection, since they scale a weight by entry,
# by row or as a whole. Orthogonal parametrizations, for example, do not qualify.
KEEPING_PARAMETRIZATIONS = {
    'torch.nn.utils.parametrizations._WeightNorm',
    'torch.nn.utils.parametrizations._SpectralNorm',
}

# Norms of maps [B, C, H, W] and of rows of channels that do not derive from a norm of torch.
MAP_NORMS = {
    'mmcv.ops.sync_bn.SyncBatchNorm',
    'mmgps.models.sam.image_encoder.LayerNorm2d',
    'mmpretrain.models.utils.norm.LayerNorm2d',
    'mmpretrain.models.utils.sparse_modules.SparseLayerNorm2D',
    'mmseg.models.utils.san_layers.LayerNorm2d',
    'segment_anything.modeling.common.LayerNorm2d',
    'timm.layers.evo_norm.EvoNorm2dB0',
    'timm.layers.evo_norm.EvoNorm2dB1',
    'timm.layers.evo_norm.EvoNorm2dB2',
    'timm.layers.evo_norm.EvoNorm2dS0',
    'timm.layers.evo_norm.EvoNorm2dS1',
    'timm.layers.evo_norm.EvoNorm2dS2',
    'timm.layers.filter_response_norm.FilterResponseNormAct2d',
    'timm.layers.filter_response_norm.FilterResponseNormTlu2d',
    'timm.layers.norm.RmsNorm2d',
    'timm.layers.norm.RmsNorm2dFp32',
    'timm.layers.norm.SimpleNorm2d',
    'timm.layers.norm.SimpleNorm2dFp32',
    'timm.layers.norm_act.RmsNormAct2d',
    'timm.layers.norm_act.RmsNormAct2dFp32',
    'timm.layers.norm.LayerNorm2d',
    'timm.layers.norm.LayerNormExp2d',
    'torchvision.models.convnext.LayerNorm2d',
}
LINE_NORMS = {
    'timm.layers.norm.RmsNorm',
    'timm.layers.norm.RmsNormFp32',
    'timm.layers.norm.SimpleNorm',
    'timm.layers.norm.SimpleNormFp32',
}

# Residual blocks of convolutions, and the attribute of their last norm.
LAST_NORMS = {
    'mmseg.models.backbones.resnet.BasicBlock': 'norm2',
    'mmseg.models.backbones.resnet.Bottleneck': 'norm3',
    'mmpretrain.models.backbones.resnet.BasicBlock': 'norm2',
    'mmpretrain.models.backbones.resnet.Bottleneck': 'norm3',
    'mmdet.models.backbones.resnet.BasicBlock': 'norm2',
    'mmdet.models.backbones.resnet.Bottleneck': 'norm3',
}

# Layers that map tokens [batch, tokens, width] to tokens, and Swin's blocks with their window attentions. They are
# matched by exact type, since a derived class may compute differently.
PROMPTED_LAYERS = {
    'mmseg.models.backbones.vit.TransformerEncoderLayer',
    'mmpretrain.models.backbones.vision_transformer.TransformerEncoderLayer',
}
PROMPTED_BLOCKS = {'mmseg.models.backbones.swin.SwinBlock', 'mmpretrain.models.backbones.swin_transformer.SwinBlock'}
PROMPTED_WINDOWS = {'mmseg.models.backbones.swin.WindowMSA', 'mmpretrain.models.utils.attention.WindowMSA'}

# Modules that use the first result of their nn.MultiheadAttention and drop the second.
DROP_WEIGHTS = {
    'mmcv.cnn.bricks.transformer.MultiheadAttention',
    'mmseg.models.backbones.mit.EfficientMultiheadAttention',
}
